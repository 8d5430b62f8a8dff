"""The way out: payments are claimed, sent and settled."""
