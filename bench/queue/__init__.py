"""The message queue's benchmarks, one module per figure of the table in docs/figures.md, and their common load generator."""
