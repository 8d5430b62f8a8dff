"""Fixtures of tests of payments."""

import pytest

from tests.settling import hasten


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter pauses. It comes before fixtures that start workers and processors."""
    hasten(monkeypatch)
