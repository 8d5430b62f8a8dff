"""The message queue on PostgreSQL: strictly ordered partitions, leased to consumer groups."""
