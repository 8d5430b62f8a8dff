"""Alerts from pending to resolved, what is told of them, silences, and what cannot be read. Against PostgreSQL, with a metric that is steered."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from registry.models import Alert, AlertSilence, AlertWatch
from registry.operators.alerts import states
from registry.operators.alerts.rules import KEEP_FIRING
from registry.operators.alerts.states import FLAPPING, HELD_FOR
from tests.registry.alerting import (
    HOST,
    alerts,
    earlier,
    evaluator,
    messages,
    rule,
    states_of_alerts,
    steered,
)

SECRET = "whsec_" + "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0"


@pytest.fixture(autouse=True)
def a_channel(settings):
    settings.ALERT_WEBHOOK_URL = "http://127.0.0.1:1/"  # nobody answers there
    settings.ALERT_WEBHOOK_SECRET = SECRET


async def told() -> list[list[tuple[str, str]]]:
    """What each message says: rule and status."""
    return [
        [(one["rule"], one["status"]) for one in json.loads(message.body)["data"]["alerts"]]
        for message in await messages()
    ]


async def silence(name: str = "steered.high", seconds: float = 3600, host: str = "") -> AlertSilence:
    now = datetime.now(UTC)
    return await AlertSilence.async_objects.acreate(
        rule=name, host=host, starts_at=now, ends_at=now + timedelta(seconds=seconds), actor="olga", why="maintenance"
    )


# -- From pending to resolved ----------------------------------------------------------------------------------------


async def test_a_condition_that_holds_is_pending_then_firing_and_resolved_once_it_was_false_for_a_while():
    with steered(rule(for_=60)) as gauge:
        one = evaluator()
        gauge.set(9, "a")
        seen = []
        for seconds, value in ((0, 9), (61, 9), (0, 1), (KEEP_FIRING - 5, 1), (6, 1)):
            await earlier(seconds)
            gauge.set(value, "a")
            await one.evaluate()
            seen += await states_of_alerts()

    [alert] = await alerts()
    assert seen == ["pending", "firing", "firing", "firing", "resolved"]
    assert (alert.value, alert.samples, alert.host) == (9, [{"labels": {"part": "a"}, "value": 9}], HOST)
    assert alert.since < alert.fired_at < alert.resolved_at
    assert await told() == [[("steered.high", "firing")], [("steered.high", "resolved")]]


async def test_a_condition_that_ends_before_its_time_leaves_no_alert_and_tells_nobody():
    with steered(rule(for_=60)) as gauge:
        one = evaluator()
        gauge.set(9)
        await one.evaluate()
        gauge.set(1)
        await one.evaluate()

    assert (await alerts(), await told()) == ([], [])


async def test_what_was_pending_before_nobody_evaluated_for_a_while_begins_anew():
    """Such as "no worker is alive", which held when the service was stopped and holds again for a moment after its start."""
    with steered(rule(for_=60)) as gauge:
        gauge.set(9)
        seen = []
        for seconds in (0, 600, 61):
            await earlier(seconds)
            await evaluator().evaluate()
            seen += await states_of_alerts()

    assert seen == ["pending", "pending", "firing"]


async def test_a_clock_that_is_set_back_delays_no_alert_and_no_resolution():
    with steered(rule(for_=60)) as gauge:
        one = evaluator()
        seen = []
        for seconds, value in ((0, 9), (-3600, 9), (61, 9), (0, 1), (-3600, 1), (KEEP_FIRING + 1, 1)):
            await earlier(seconds)
            gauge.set(value)
            await one.evaluate()
            seen += await states_of_alerts()

    assert seen == ["pending", "pending", "firing", "firing", "firing", "resolved"]


async def test_a_short_recovery_does_not_resolve_an_alert():
    with steered(rule()) as gauge:
        one = evaluator()
        for value, seconds in ((9, 0), (1, KEEP_FIRING - 1), (9, KEEP_FIRING), (1, 0)):
            gauge.set(value)
            await one.evaluate()
            await earlier(seconds)

    assert await states_of_alerts() == ["firing"]
    assert await told() == [[("steered.high", "firing")]]


async def test_a_restart_in_the_middle_goes_on_where_the_process_before_was():
    with steered(rule(for_=60)) as gauge:
        gauge.set(9)
        await evaluator().evaluate()
        await earlier(61)
        await evaluator().evaluate()
        await evaluator().evaluate()
        gauge.set(1)
        await evaluator().evaluate()
        await earlier(KEEP_FIRING + 1)
        await evaluator().evaluate()
        await evaluator().evaluate()

    assert await told() == [[("steered.high", "firing")], [("steered.high", "resolved")]]


async def test_what_changes_in_one_evaluation_is_one_message():
    with steered(rule(), rule(name="steered.low", expression="min(steered) < 10")) as gauge:
        gauge.set(9)
        await evaluator().evaluate()

    assert await told() == [[("steered.high", "firing"), ("steered.low", "firing")]]


# -- What cannot be read ----------------------------------------------------------------------------------------------


async def test_an_alert_whose_metric_cannot_be_read_stays_as_it_is_and_is_unknown_after_a_while():
    with steered(rule()) as gauge:
        one = evaluator()
        gauge.set(9)
        await one.evaluate()
        gauge.broken = True
        for seconds in (0, 40, 60, 600):
            await earlier(seconds)
            await one.evaluate()

    [alert] = await alerts()
    assert alert.status == "firing"
    assert states.is_unknown(alert, datetime.now(UTC))
    assert await told() == [[("steered.high", "firing")]]


async def test_a_rule_that_cannot_be_evaluated_is_named_even_without_an_alert(monkeypatch):
    monkeypatch.setattr(states, "UNKNOWN_AFTER", timedelta())
    with steered(rule()) as gauge:
        one = evaluator()
        gauge.broken = True
        await one.evaluate()
        named = [await AlertWatch.async_objects.aget(pk=HOST)]
        gauge.broken = False
        await one.evaluate()
        named.append(await AlertWatch.async_objects.aget(pk=HOST))

    assert [list(watch.unknown) for watch in named] == [["steered.high"], []]
    assert named[0].evaluator == "this test"


async def test_each_gauge_is_read_once_in_an_evaluation_whatever_the_number_of_rules():
    added = [rule(name=f"steered.{letter}", expression=f"max(steered) > {n}") for n, letter in enumerate("abcdef")]
    with steered(*added) as gauge:
        await evaluator().evaluate()

    assert gauge.reads == 1


async def test_a_metric_without_samples_violates_no_rule():
    with steered(rule(expression="min(steered) < 1")) as gauge:
        await evaluator().evaluate()
        assert gauge.reads == 1

    assert await alerts() == []


async def test_an_alert_of_a_rule_that_was_removed_is_resolved_after_a_while():
    with steered(rule()) as gauge:
        gauge.set(9)
        await evaluator().evaluate()
    with steered(rule(name="another.rule")):
        await evaluator().evaluate()
        before = await states_of_alerts()
        await earlier(states.REMOVED_AFTER.total_seconds() + 1)
        await evaluator().evaluate()

    assert (before, await states_of_alerts()) == (["firing"], ["resolved"])


# -- Silences ----------------------------------------------------------------------------------------------------------


async def test_a_silenced_alert_fires_and_tells_nobody_until_the_silence_ends():
    quiet = await silence()
    with steered(rule()) as gauge:
        one = evaluator()
        gauge.set(9)
        await one.evaluate()
        during = (await states_of_alerts(), await told())
        await AlertSilence.async_objects.filter(pk=quiet.pk).aupdate(ends_at=datetime.now(UTC))
        await one.evaluate()
        await one.evaluate()

    assert during == (["firing"], [])
    assert await told() == [[("steered.high", "firing")]]


async def test_an_alert_that_was_told_before_its_silence_is_told_again_at_its_end_if_it_still_fires():
    with steered(rule()) as gauge:
        one = evaluator()
        gauge.set(9)
        await one.evaluate()
        quiet = await silence()
        await one.evaluate()
        await AlertSilence.async_objects.filter(pk=quiet.pk).aupdate(ends_at=datetime.now(UTC))
        await one.evaluate()
        await one.evaluate()

    assert await told() == [[("steered.high", "firing")]] * 2


async def test_an_alert_that_fires_and_ends_within_a_silence_is_never_told():
    quiet = await silence()
    with steered(rule()) as gauge:
        one = evaluator()
        for value, seconds in ((9, 0), (1, KEEP_FIRING + 1), (1, 0)):
            gauge.set(value)
            await one.evaluate()
            await earlier(seconds)
        await AlertSilence.async_objects.filter(pk=quiet.pk).aupdate(ends_at=datetime.now(UTC))
        await one.evaluate()

    assert (await states_of_alerts(), await told()) == (["resolved"], [])


async def test_that_a_told_alert_was_resolved_within_a_silence_is_told_at_its_end():
    with steered(rule()) as gauge:
        one = evaluator()
        gauge.set(9)
        await one.evaluate()
        quiet = await silence()
        gauge.set(1)
        await one.evaluate()
        await earlier(KEEP_FIRING + 1)
        await one.evaluate()
        during = await told()
        await AlertSilence.async_objects.filter(pk=quiet.pk).aupdate(ends_at=datetime.now(UTC))
        await one.evaluate()

    assert during == [[("steered.high", "firing")]]
    assert await told() == [*during, [("steered.high", "resolved")]]


@pytest.mark.parametrize(("host", "messages_made"), [("", 0), (HOST, 0), ("elsewhere", 1)])
async def test_a_silence_holds_for_its_host_or_for_all(host: str, messages_made: int):
    await silence(host=host)
    with steered(rule()) as gauge:
        gauge.set(9)
        await evaluator().evaluate()

    assert len(await told()) == messages_made


# -- Flapping -----------------------------------------------------------------------------------------------------------


async def test_an_alert_that_changes_too_often_is_held_to_one_message_for_each_period():
    with steered(rule()) as gauge:
        one = evaluator()
        for value in (*(9, 1) * 7, 9):
            gauge.set(value)
            await one.evaluate()
            await earlier(KEEP_FIRING + 1)
            await one.evaluate()
        held = await told()
        await earlier(HELD_FOR.total_seconds())
        await one.evaluate()

    [about] = json.loads((await messages())[-1].body)["data"]["alerts"]
    assert (len(held), len(await told())) == (FLAPPING, FLAPPING + 1)
    assert (about["status"], about["messagesWithinTheHour"]) == ("firing", FLAPPING)
    assert await Alert.async_objects.acount() == 8
