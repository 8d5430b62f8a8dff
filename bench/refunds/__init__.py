"""Benchmarks of refunds."""
