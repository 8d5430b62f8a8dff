"""Benchmarks: one module each, `run(effort)` gives figures; `python -m bench` runs them all."""
