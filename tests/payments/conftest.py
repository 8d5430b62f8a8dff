"""Fixtures of tests of payments."""

import pytest
from django.contrib.auth.hashers import Argon2PasswordHasher

from tests.settling import hasten


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The product's hash of a password at its least cost: none of the tests is about how slow it is."""
    for name, least in (("time_cost", 1), ("memory_cost", 8), ("parallelism", 1)):
        monkeypatch.setattr(Argon2PasswordHasher, name, least)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter pauses. It comes before fixtures that start workers and processors."""
    hasten(monkeypatch)
