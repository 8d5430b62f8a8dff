"""The whole service under load while its parts are killed. `python -m tests.chaos --minutes 10` does so for longer."""
