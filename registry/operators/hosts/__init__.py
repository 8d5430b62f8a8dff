"""Hosts that share one database: what each reports of itself, and what operators see of them."""
