"""How deep a run of the tests goes: `make test` in minutes, `make test-deep` (DEEP=1) for as long as it takes."""

import os

DEEP = os.environ.get("DEEP") == "1"


def deep[T](briefly: T, deeply: T) -> T:
    """How many examples, shuffles or strikes this run takes."""
    return deeply if DEEP else briefly
