"""Uncertain payments are settled at the same processor with the same requestedAt, and booked once."""

import asyncio
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.db import connection

from payments.processors import http
from payments.settle import decisions, doubts
from payments.settle.work import PaymentWork
from payments.states import UNCERTAIN
from registry.data import database
from tests.bed import HttpProcessor
from tests.conftest import at_work, eventually
from tests.factories import in_thread
from tests.servers import other_pool
from tests.settling import (
    accept,
    configure,
    hasten,
    opened,
    payment,
    settle_due,
    skip_pauses,
    tries,
    until,
    until_settled,
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """A send that is answered late, because the machine is busy, ends as one without an answer: booked once."""
    hasten(monkeypatch)
    monkeypatch.setattr(decisions, "LONGEST_BACKOFF", 0.05)
    monkeypatch.setattr(http, "SEND_TIMEOUT", 0.1)


def requested_at(processor: HttpProcessor, correlation_id) -> set:
    """Every requestedAt that the processor was sent for one payment."""
    return {request.requested_at for request in processor.requests if request.correlation_id == str(correlation_id)}


async def test_a_payment_booked_without_a_response_is_looked_up_and_not_sent_again(tenant, worker, default, fallback):
    default.books_but_never_answers(times=1)

    [one] = await accept(tenant)
    [settled] = await until_settled(tenant)

    assert settled.processor == "default"
    assert (default.received, default.lookups) == ([str(one)], [str(one)])
    assert not fallback.received
    assert [(a.outcome, a.code) for a in await tries(one)] == [("unknown", "timeout"), ("booked", "looked_up")]


async def test_after_an_invalid_look_up_the_payment_is_repeated_at_the_same_processor(
    tenant, worker, default, fallback
):
    default.books_but_never_answers(times=1)
    default.lookups_answer(503)

    [one] = await accept(tenant)
    [settled] = await until_settled(tenant)

    assert settled.processor == "default"
    assert requested_at(default, one) == {settled.requested_at} == {default.booked[str(one)].requested_at}
    assert default.duplicates == 1
    assert {a.requested_at for a in await tries(one)} == {settled.requested_at}
    assert not fallback.received


@pytest.mark.parametrize(
    "trouble",
    [
        lambda p: p.answers_garbage(times=3),
        lambda p: p.resets_connections(times=3),
        lambda p: p.answers(502, books=True, times=3),
        lambda p: p.answers(200, body=b"<html>Welcome</html>", books=True, times=3),
        lambda p: p.answers(302, books=True, times=3),
        lambda p: p.answers(503, books=False, times=3),
    ],
    ids=["garbage", "reset", "bad gateway", "a web page", "redirect", "unavailable"],
)
async def test_after_an_inconclusive_response_the_payment_is_looked_up_at_the_same_processor(
    tenant, worker, default, fallback, trouble, monkeypatch
):
    monkeypatch.setattr(http, "SEND_TIMEOUT", 6.0)  # each of these is answered at once
    trouble(default)

    ids = await accept(tenant, 4)
    settled = await until_settled(tenant)

    firsts = {(await tries(one))[0].processor for one in ids}
    assert firsts == {"default"}
    struck = [row for row in settled if (await tries(row.correlation_id))[0].outcome == "unknown"]
    assert len(struck) == 3
    assert {row.processor for row in struck} == {"default"}
    assert not set(default.booked) & set(fallback.booked)
    assert {row.requested_at for row in struck} == {default.booked[str(r.correlation_id)].requested_at for r in struck}


async def test_a_booking_after_the_timeout_is_found(tenant, worker, default, fallback):
    await configure(tenant, "default", longestDelay=2)
    default.delays(250)

    [one] = await accept(tenant)
    await until(tenant, UNCERTAIN)
    [settled] = await until_settled(tenant)

    assert settled.processor == "default"
    assert requested_at(default, one) == {settled.requested_at}
    assert not fallback.received


async def test_a_payment_may_leave_a_processor_that_does_not_know_it_only_after_the_longest_delay(
    tenant, worker, default, fallback
):
    await configure(tenant, "default", longestDelay=0.4)
    default.never_answers()
    [one] = await accept(tenant)
    await eventually(lambda: default.received)
    default.overloads()  # certain for the repeats, but not for the first send
    await configure(tenant, "default", enabled=False)

    [settled] = await until_settled(tenant)

    first, *_, last = await tries(one)
    silent_since = first.started_at + timedelta(milliseconds=first.latency_ms)
    assert (settled.processor, last.processor, first.processor) == ("fallback", "fallback", "default")
    assert last.started_at - silent_since >= timedelta(seconds=0.4)
    assert not default.booked
    assert len(fallback.received) == 1
    assert "never_booked" in {a.code for a in await tries(one)}


async def test_a_repeat_without_a_response_renews_the_longest_delay(tenant, worker, default, fallback, monkeypatch):
    monkeypatch.setattr(doubts, "REPEAT_AFTER", 0.1)  # the second pause is longer than the longest delay
    await configure(tenant, "default", longestDelay=0.15)
    default.never_answers()
    [one] = await accept(tenant)
    await eventually(lambda: default.received)
    await configure(tenant, "default", enabled=False)

    await until_settled(tenant)

    made = await tries(one)
    elsewhere = next(a for a in made if a.processor == "fallback")
    silences = [a for a in made if (a.processor, a.code) == ("default", "timeout")]
    ended = max(a.started_at + timedelta(milliseconds=a.latency_ms) for a in silences)
    assert len(silences) > 1
    assert elsewhere.started_at - ended >= timedelta(seconds=0.15)
    assert not default.booked


async def test_retry_after_of_a_processor_is_respected(tenant, default):
    default.overloads(retry_after=40, times=1)
    [one] = await accept(tenant)

    async with opened(PaymentWork()) as work:
        for _ in range(2):  # nothing is due the second time
            await settle_due(work)
        waiting, sent = await payment(tenant, one), len(default.received)
        await skip_pauses(tenant)
        await settle_due(work)

    first, _second = await tries(one)
    assert (first.outcome, first.code, sent) == ("not_booked", "http_429", 1)
    assert waiting.run_at - first.started_at >= timedelta(seconds=40)
    assert list(default.booked) == [str(one)]


async def test_while_processors_flap_every_payment_is_booked_once(tenant, worker, default, fallback):
    default.flaps(0.15)
    fallback.flaps(0.25)

    ids = await accept(tenant, 60)
    settled = await until_settled(tenant)

    assert sorted([*default.booked, *fallback.booked]) == sorted(map(str, ids))
    places = {str(row.correlation_id): row.processor for row in settled}
    assert {one for one, name in places.items() if name == "default"} == set(default.booked)


async def test_a_refusal_of_a_repeat_proves_nothing_about_the_first_send(tenant, worker, default, fallback):
    default.books_but_never_answers(times=1)
    default.lookups_answer(404)
    [one] = await accept(tenant)
    await eventually(lambda: default.booked)
    default.answers(402)

    await eventually(lambda: len(default.received) > 2)
    in_doubt = await payment(tenant, one)
    default.recovers()
    [settled] = await until_settled(tenant)

    assert in_doubt.status == UNCERTAIN
    assert settled.processor == "default"
    assert not fallback.received


async def test_payments_of_a_dead_worker_are_uncertain_and_not_lost(tenant, default, fallback):
    default.books_but_never_answers()
    async with at_work() as drain:
        [one] = await accept(tenant)
        await eventually(lambda: default.booked)
        for task in drain.in_flight:
            task.cancel()  # like a kill: nothing is written
        drain.in_flight.clear()
    default.recovers()
    assert (await payment(tenant, one)).status == "processing"

    async with at_work():
        await _leases_lapse(tenant)
        [settled] = await until_settled(tenant)

    assert settled.processor == "default"
    assert requested_at(default, one) == {settled.requested_at}
    assert not fallback.received


async def _leases_lapse(tenant) -> None:
    await database.fetch("UPDATE payments_payment SET leased_until = now() WHERE tenant_id = %s", [tenant.pk])


@pytest.mark.parametrize("step", [timedelta(days=1), timedelta(days=-1)], ids=["forward", "back"])
async def test_a_clock_step_neither_duplicates_nor_loses_payments(tenant, worker, default, fallback, step):
    default.never_answers()
    [one] = await accept(tenant)
    await until(tenant, UNCERTAIN)
    written = (await tries(one))[0].requested_at

    with time_machine.travel(datetime.now(UTC) + step):
        asked = len(await tries(one))
        await eventually(lambda: _tried_more_than(one, asked + 2))
        elsewhere = list(fallback.received)
        default.recovers()
        [settled] = await until_settled(tenant)

    assert not elsewhere
    assert settled.processor == "default"
    assert settled.requested_at == written
    assert requested_at(default, one) == {written}


async def _tried_more_than(one, number: int) -> bool:
    return len(await tries(one)) > number


async def test_a_worker_that_was_suspended_too_long_sends_nothing_more(tenant, default, monkeypatch):
    monkeypatch.setattr(PaymentWork, "send_within", 0.0)

    async with at_work():
        [one] = await accept(tenant)
        await eventually(lambda: _tried_more_than(one, 1))

    assert not default.received
    assert {a.code for a in await tries(one) if a.outcome} == {"not_sent_in_time"}


async def test_a_worker_that_dies_during_a_repeat_renews_the_longest_delay(tenant, default, fallback):
    """The repeat may still be on its way: the longest delay counts from its end and not from the first send's."""
    longest = 0.4
    await configure(tenant, "default", longestDelay=longest)
    default.never_answers()
    default.lookups_answer(500)
    async with at_work() as drain:
        await accept(tenant)
        await until(tenant, UNCERTAIN)
        await asyncio.sleep(longest)  # the first send's doubt would be over now
        repeats = len(default.received)
        await eventually(lambda: len(default.received) > repeats and drain.in_flight)
        for task in drain.in_flight:
            task.cancel()  # like a kill: nothing is written
        drain.in_flight.clear()
    default.recovers()
    default.answers(401)  # certain for the repeats, but not for those before
    await configure(tenant, "default", enabled=False)
    await _leases_lapse(tenant)
    cut = time.monotonic()

    async with at_work():
        await eventually(lambda: fallback.received)

    assert time.monotonic() - cut > longest


# -- The database's clock --------------------------------------------------------------------------------------


STEPPABLE_CLOCK = """
CREATE SCHEMA clock;
CREATE TABLE clock.stepped AS SELECT interval '0' AS by;
CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE AS
    'SELECT pg_catalog.transaction_timestamp() + by FROM clock.stepped';
"""


@pytest.fixture
async def steppable_clock():
    """A database whose `now()` is ours to step, as NTP or an operator steps its machine's clock."""
    await in_thread(_run, STEPPABLE_CLOCK)
    async with other_pool(options="-c search_path=clock,pg_catalog,public"):
        yield
    await in_thread(_run, "DROP SCHEMA clock CASCADE")


def _run(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


@pytest.mark.parametrize("same_worker", [True, False], ids=["the same worker", "a new worker"])
async def test_a_step_of_the_databases_clock_does_not_shorten_the_longest_delay(
    steppable_clock, tenant, default, fallback, same_worker
):
    longest = 0.6
    await configure(tenant, "default", longestDelay=longest)
    default.never_answers()
    async with AsyncExitStack() as workers:
        first = await workers.enter_async_context(at_work())
        [one] = await accept(tenant)
        await until(tenant, UNCERTAIN)
        doubted = time.monotonic()
        default.answers(401)  # certain for the repeats, but not for the first send
        await eventually(lambda: _was_refused(one))
        if not same_worker:
            first.stop()
            await workers.enter_async_context(at_work())
        await configure(tenant, "default", enabled=False)

        await in_thread(_run, "UPDATE clock.stepped SET by = interval '1 hour'")
        await eventually(lambda: fallback.received)

    assert time.monotonic() - doubted > longest - 0.2  # it was in doubt for a moment before
    assert not default.booked


async def _was_refused(one) -> bool:
    return "http_401" in {a.code for a in await tries(one)}
