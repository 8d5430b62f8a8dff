"""Alerts of a host while PostgreSQL is away: evaluated in memory, told at once and once, stored when it is back."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from pytest_httpserver import HTTPServer

from registry.data import db_breaker
from registry.edge import status
from registry.operators.alerts import evaluator as evaluators
from registry.operators.alerts.evaluator import AlertEvaluator
from registry.operators.alerts.lock import HeldFile
from tests.conftest import eventually
from tests.registry.alerting import HOST, alerts, evaluator, messages, rule, steered
from tests.registry.test_alert_messages import Receiver, receiver  # noqa: F401 - a fixture
from tests.registry.test_alerts import silence
from tests.servers import read_only, unreachable


@pytest.fixture(autouse=True)
def resolved_at_once(monkeypatch):
    monkeypatch.setattr("registry.operators.alerts.states.KEEP_FIRING", 0)


@pytest.fixture(autouse=True)
async def breaker_is_closed() -> AsyncIterator[None]:
    yield
    await db_breaker.breakers.close()


async def step(one: AlertEvaluator) -> None:
    """An evaluation, with the messages that it sends."""
    await one.evaluate()
    if one._sending:
        await one._sending


async def is_back() -> None:
    await db_breaker.breakers.close()


def errors_of_the_database() -> float:
    return REGISTRY.get_sample_value("registry_database_errors_total", {"kind": "OperationalError"}) or 0


def said(told: Receiver) -> list[str]:
    return [one["status"] for event in told.verified for one in event["data"]["alerts"]]


async def test_what_begins_while_postgresql_is_away_is_told_once_and_stored_when_it_is_back(receiver: Receiver):  # noqa: F811
    with steered(rule()) as gauge:
        one = evaluator()
        await step(one)
        async with unreachable():
            gauge.set(9)
            for _ in range(3):
                await step(one)
            during = said(receiver)
        await is_back()
        for _ in range(3):
            await step(one)

    [alert], [message] = await alerts(), await messages()
    assert during == said(receiver) == ["firing"]
    assert (alert.status, alert.value, alert.told_at is not None) == ("firing", 9, True)
    assert (message.sent_at is not None, message.due_at, message.message_id) == (True, None, receiver.ids[0])


async def test_a_silence_that_was_made_before_holds_while_postgresql_is_away(receiver: Receiver):  # noqa: F811
    await silence()
    with steered(rule()) as gauge:
        one = evaluator()
        await step(one)
        async with unreachable():
            gauge.set(9)
            for _ in range(2):
                await step(one)
        await is_back()
        await step(one)

    assert [alert.status for alert in await alerts()] == ["firing"]
    assert said(receiver) == []


async def test_what_begins_and_ends_while_postgresql_is_away_is_told_and_kept_as_history(receiver: Receiver):  # noqa: F811
    with steered(rule()) as gauge:
        one = evaluator()
        async with unreachable():  # from the start of the process
            for value in (9, 1, 1):
                gauge.set(value)
                await step(one)
        await is_back()
        await step(one)

    [alert] = await alerts()
    assert said(receiver) == ["firing", "resolved"]
    assert (alert.status, alert.told_resolved_at is not None) == ("resolved", True)
    assert len(await messages()) == 2


async def test_an_alert_that_fired_before_is_resolved_while_postgresql_is_away(receiver: Receiver):  # noqa: F811
    with steered(rule()) as gauge:
        one, sender = evaluator(), evaluator("service")
        gauge.set(9)
        await step(one)
        await step(sender)
        before = said(receiver)
        async with unreachable():
            gauge.set(1)
            for _ in range(3):
                await step(one)
        await is_back()
        for each in (one, sender, one, sender):
            await step(each)

    assert before == ["firing"]
    assert said(receiver) == ["firing", "resolved"]
    assert [alert.status for alert in await alerts()] == ["resolved"]


async def test_a_process_that_begins_during_the_outage_joins_the_alert_that_is_stored(receiver: Receiver):  # noqa: F811
    with steered(rule()) as gauge:
        gauge.set(9)
        await step(evaluator())
        fresh = evaluator()
        async with unreachable():
            await step(fresh)
        await is_back()
        for _ in range(2):
            await step(fresh)

    [alert] = await alerts()
    assert alert.status == "firing"
    assert fresh.memory.is_used is False


async def test_a_read_only_database_counts_as_away(receiver: Receiver):  # noqa: F811
    with steered(rule()) as gauge:
        one = evaluator()
        async with read_only() as switch:
            gauge.set(9)
            for _ in range(3):
                await step(one)
            during = said(receiver)
            await switch.off()
        await is_back()
        await eventually(lambda: stored(one))

    assert during == said(receiver) == ["firing"]


async def stored(one: AlertEvaluator) -> bool:
    await step(one)
    return bool(await alerts()) and not one.memory.is_used


async def test_a_message_that_fails_during_the_outage_is_sent_from_postgresql_afterwards(
    receiver: Receiver,  # noqa: F811
):
    receiver.status = 500
    with steered(rule()) as gauge:
        one, sender = evaluator(), evaluator("service")
        async with unreachable():
            gauge.set(9)
            await step(one)
        await is_back()
        await step(one)
        receiver.status = 204
        [message] = await messages()
        message.due_at = datetime.now(UTC)
        await message.async_save()
        await step(sender)

    assert receiver.ids == [message.message_id] * 2
    assert [one.sent_at is not None for one in await messages()] == [True]


async def test_a_message_that_arrives_while_postgresql_goes_away_is_not_sent_again(receiver: Receiver):  # noqa: F811
    receiver.may_answer.clear()
    with steered(rule(scope="service")) as gauge:
        one = evaluator("service")
        gauge.set(9)
        await one.evaluate()
        assert one._sending
        await eventually(lambda: receiver.ids)
        async with unreachable():
            before = errors_of_the_database()
            receiver.may_answer.set()
            await eventually(lambda: errors_of_the_database() > before)
        await is_back()
        await one._sending
        await step(one)

    [message] = await messages()
    assert (message.sent_at is not None, message.due_at) == (True, None)
    assert len(receiver.ids) == 1


async def test_a_host_tells_once_of_an_alert_that_postgresql_does_not_take(receiver: Receiver):  # noqa: F811
    with steered(rule(sentence="No text of PostgreSQL has a \0.")) as gauge:
        one = evaluator()
        gauge.set(9)
        for _ in range(3):
            await step(one)

    assert said(receiver) == ["firing"]
    assert await alerts() == []


async def test_a_loop_that_ends_while_postgresql_is_away_leaves_no_sign_of_that_behind():
    async with unreachable():
        assert not await db_breaker.current().is_available()
        during = await status.gauge_of("registry_database_away")
        await db_breaker.breakers.close()

    assert (during["away"], (await status.gauge_of("registry_database_away"))["away"]) == (1, 0)


async def test_of_two_processes_of_a_host_one_tells_while_postgresql_is_away(
    receiver: Receiver,  # noqa: F811
    tmp_path: Path,
    monkeypatch,
):
    monkeypatch.setattr(evaluators, "EVERY", {"host": 0.05})
    monkeypatch.setattr(evaluators, "RENEW_EVERY", 0.02)
    pair = [AlertEvaluator("host", HOST, HeldFile(tmp_path / "lock", str(number))) for number in (1, 2)]
    with steered(rule()) as gauge:
        gauge.set(9)
        async with unreachable():
            tasks = [asyncio.create_task(one.run()) for one in pair]
            await eventually(lambda: gauge.reads >= 5 and receiver.ids)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for one in pair:
                await one.close()

    assert said(receiver) == ["firing"]


async def test_the_rules_of_the_service_are_not_evaluated_while_postgresql_is_away(httpserver: HTTPServer):
    with steered(rule(scope="service")) as gauge:
        one = evaluator("service")
        async with unreachable():
            gauge.set(9)
            await one.evaluate()
            assert one.memory.known.open == {}
        await is_back()
        await one.evaluate()

    assert [alert.status for alert in await alerts()] == ["firing"]
