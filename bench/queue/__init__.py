"""The message queue's benchmarks, one module per figure of the README's table, and their common load generator."""
