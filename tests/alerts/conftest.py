"""Fixtures of the tests of alerts: a receiver of their messages, watches over rules, and the table of what was seen."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from registry.operators.alerts import rules
from tests.alerts.watching import HEAD, SEEN, Watch, declared
from tests.bed.receiver import Receiver

SECRET = "whsec_" + "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0"

type Alarm = Callable[..., Watch]


@pytest.fixture(scope="module", autouse=True)
def _table() -> Iterator[None]:
    """What the tests of a module have seen, for people who run them with -s."""
    before = len(SEEN)
    yield
    if found := SEEN[before:]:
        print("", HEAD, *found, sep="\n")


@pytest.fixture
async def operators(settings: Any) -> AsyncIterator[Receiver]:
    """Where messages about alerts are sent."""
    async with Receiver() as found:
        settings.ALERT_WEBHOOK_URL, settings.ALERT_WEBHOOK_SECRET = found.url, SECRET
        yield found


@pytest.fixture
def alarm(operators: Receiver, monkeypatch: pytest.MonkeyPatch) -> Alarm:
    """Watch a rule: its name, what the trouble is, and perhaps another expression for it. No other rule is evaluated."""

    def watch(name: str, trouble: str, expression: str = "") -> Watch:
        rule = declared(name, expression)
        monkeypatch.setattr(rules, "_rules", {name: rule})
        return Watch(rule, trouble, operators)

    return watch
