"""The message queue's benchmarks, one module per figure of the README's table, and the load that they share."""
