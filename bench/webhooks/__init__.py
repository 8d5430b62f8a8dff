"""Benchmarks of inbound and outbound webhooks."""
