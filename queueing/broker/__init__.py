"""The message queue: partitions in strict order, leased to consumer groups, on PostgreSQL."""
