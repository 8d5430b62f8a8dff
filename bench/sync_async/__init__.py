"""The payment service as a synchronous Django project, and its comparison with ours (compare.py)."""
