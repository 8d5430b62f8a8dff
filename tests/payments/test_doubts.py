"""Uncertain payments are looked up at the processor they were sent to, also if nothing new may be sent there."""

import pytest
from django.db import connection

from payments.settle import decisions
from payments.settle.work import PaymentWork
from payments.states import PROCESSING, UNCERTAIN
from queueing.work.drain import Drain
from registry.data import database
from tests.conftest import at_work, eventually
from tests.factories import in_thread
from tests.settling import accept, configure, count, hasten, payment, tries, until, until_settled


@pytest.fixture(autouse=True)
def impatient(monkeypatch, default):
    hasten(monkeypatch, 25)
    monkeypatch.setattr(decisions, "LONGEST_BACKOFF", 0.05)
    default.health_every /= 25


def has_no_route(drain: Drain, tenant) -> bool:
    return drain.work.routes.send_limits().get(tenant.pk) == 0


def knows_of_none(drain: Drain, tenant) -> bool:
    return has_no_route(drain, tenant) and not any(account.enabled for account, _ in drain.work.routes.of(tenant.pk))


async def one_in_doubt(tenant, default):
    """A payment that is booked, of which its sender knows nothing as long as look-ups fail."""
    default.resets_connections()
    default.lookups_answer(500)
    [one] = await accept(tenant)
    await until(tenant, UNCERTAIN)
    return one


async def test_an_uncertain_payment_is_settled_at_a_processor_that_was_disabled_meanwhile(tenant, worker, default):
    one = await one_in_doubt(tenant, default)
    await configure(tenant, "default", enabled=False)
    await eventually(lambda: knows_of_none(worker, tenant))
    fresh = await accept(tenant, 20)

    default.lookups_answer(500, times=0)  # they tell the truth again
    await eventually(lambda: settled(tenant, 1))

    assert (await payment(tenant, one)).status == "succeeded"
    assert await count(tenant, "queued") == len(fresh)
    assert list(default.booked) == [str(one)]
    assert await ledger_lines(tenant) == 3


async def test_an_uncertain_payment_is_settled_at_the_only_processor_while_that_fails(tenant, worker, default):
    one = await one_in_doubt(tenant, default)
    default.fails()
    await eventually(lambda: has_no_route(worker, tenant))
    sent = len(default.received)
    fresh = await accept(tenant, 20)

    default.lookups_answer(500, times=0)
    await eventually(lambda: settled(tenant, 1))

    assert (await payment(tenant, one)).status == "succeeded"
    assert (await tries(one))[-1].code == "looked_up"
    assert await count(tenant, "queued") == len(fresh)
    assert (len(default.received), list(default.booked)) == (sent, [str(one)])
    assert await ledger_lines(tenant) == 3


async def test_a_payment_that_a_disabled_processor_never_booked_waits_for_another_processor(tenant, worker, default):
    await configure(tenant, "default", longestDelay=0.2)
    default.resets_connections(books=False)
    default.lookups_answer(500)
    [one] = await accept(tenant)
    await until(tenant, UNCERTAIN)
    default.fails()
    await configure(tenant, "default", enabled=False)
    await eventually(lambda: knows_of_none(worker, tenant))

    default.lookups_answer(500, times=0)
    await until(tenant, "queued")
    default.recovers()
    await configure(tenant, "default", enabled=True)
    [settled] = await until_settled(tenant)

    assert "never_booked" in {a.code for a in await tries(one)}
    assert (settled.processor, list(default.booked)) == ("default", [str(one)])


async def test_a_first_send_of_a_dead_worker_is_looked_up_too(tenant, default):
    default.books_but_never_answers(times=1)
    async with at_work() as dying:
        [one] = await accept(tenant)
        await eventually(lambda: default.booked)
        for task in dying.in_flight:
            task.cancel()  # as a kill: nothing is written down
        dying.in_flight.clear()
    assert (await payment(tenant, one)).status == PROCESSING
    await configure(tenant, "default", enabled=False)

    async with at_work() as other:
        await accept(tenant)  # the worker learns from it that there is no route
        await eventually(lambda: knows_of_none(other, tenant))
        await database.fetch("UPDATE payments_payment SET leased_until = now() WHERE leased_until IS NOT NULL")
        await eventually(lambda: settled(tenant, 1))

    assert (await payment(tenant, one)).status == "succeeded"
    assert [a.code for a in await tries(one)] == ["", "looked_up"]
    assert default.received == [str(one)]


async def test_uncertain_payments_respect_the_limit_of_a_tenant(tenant, default, monkeypatch):
    """However many are in doubt, one claim takes no more of them than may be in flight."""
    await accept(tenant, 12)
    await database.fetch(
        "UPDATE payments_payment SET status = 'uncertain', in_doubt_since = now(), attempt = 1 WHERE tenant_id = %s",
        [tenant.pk],
    )
    await database.fetch(
        """INSERT INTO payments_attempt (tenant_id, payment_id, number, processor_id, reason, requested_at, outcome, code)
        SELECT p.tenant_id, p.id, 1, r.id, '', now(), 'unknown', '' FROM payments_payment p
        JOIN payments_processor r ON r.tenant_id = p.tenant_id WHERE p.tenant_id = %s""",
        [tenant.pk],
    )
    await configure(tenant, "default", enabled=False)
    work = PaymentWork()
    await work.routes.load({tenant.pk})

    few = await work.claim(1, 3)
    work.in_flight_of[tenant.pk] = work.share_limit - 4
    room = await work.claim(1, 10)
    none = await work.claim(1, 10)
    work.in_flight_of.clear()
    rest = await work.claim(1, 10)
    await work.close()

    assert [len(claims) for claims in (few, room, none, rest)] == [3, 4, 0, 5]
    assert len({c.payment_id for claims in (few, room, none, rest) for c in claims}) == 12


async def test_a_claim_in_the_normal_flow_writes_no_index_entry(tenant, default, monkeypatch):
    """Every index of the table would get one per payment and claim: its updates stay on their pages (HOT)."""
    many, real = 300, database.connection_parameters
    await accept(tenant, many)
    await database.pools.close()
    monkeypatch.setattr(database, "connection_parameters", lambda: {**real(), "application_name": "measured"})
    before = await in_thread(_written)
    work = PaymentWork()

    claims = [c for _ in range(3) for c in await work.claim(1, 100)]
    await work.close()
    await database.pools.close()
    await eventually(lambda: in_thread(_told))
    updates, hot = (now - then for now, then in zip(await in_thread(_written), before, strict=True))

    assert len(claims) == many <= updates
    assert updates - hot < many / 2  # some pages have no room left, for rows grow at a claim


def _written() -> tuple[int, int]:
    """Updates of payments so far, and those of them that touched no index."""
    return _row("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'payments_payment'")


def _told() -> bool:
    """Sessions tell the statistics at their end at the latest."""
    return _row("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'measured'") == (0,)


def _row(sql: str) -> tuple:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()


async def settled(tenant, number: int) -> bool:
    return await count(tenant, "succeeded") == number


async def ledger_lines(tenant) -> int:
    return (await database.fetch("SELECT count(*) FROM payments_ledgerentry WHERE tenant_id = %s", [tenant.pk]))[0][0]
