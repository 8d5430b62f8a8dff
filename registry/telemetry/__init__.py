"""What the service says of its work: metrics, logs, and the context that they carry."""
