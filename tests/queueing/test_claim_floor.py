"""The floor of claims: a claim costs what it takes, not what is in flight, and misses nothing for long."""

import asyncio
import json
from typing import Any

import pytest

from payments.inbound import work as inbound
from payments.refunds import work as refunds
from payments.settle.work import PAYMENTS, TAKE_DIVIDED, PaymentWork
from queueing.jobs import work as jobs
from queueing.outbound import work as outbound
from queueing.work import shares
from registry.data import database
from tests.conftest import eventually
from tests.factories import in_thread, make_processor, make_tenant
from tests.plans import TENANT, Bed, undone
from tests.settling import seed

TABLES = [
    "payments_payment", "payments_attempt", "payments_refund", "payments_inboundevent", "queueing_webhookdelivery",
    "queueing_webhookendpoint", "queueing_job", "queueing_jobevent", "queueing_jobstream",
]  # fmt: skip
DUE = 20
KINDS = ("payments", "refunds", "inbound", "deliveries", "jobs")
DESCENTS = 12  # pages: where priorities differ, an index is descended once more

OWNER = """
INSERT INTO registry_tenant (id, slug, name, currency, status, mode, open, settings)
VALUES (%(tenant)s, 'floor', '', 'BRL', 'active', 'sandbox', false, '{}');
INSERT INTO payments_processor (id, tenant_id, name, kind, url, fee, options, enabled)
VALUES (%(tenant)s, %(tenant)s, 'p1', 'sandbox', '', 0, '{}', true);
INSERT INTO queueing_webhookendpoint (tenant_id, id, uuid, url, events, positions, secrets)
VALUES (%(tenant)s, 1, gen_random_uuid(), '', '[]', '{}', '');
INSERT INTO queueing_jobstream (tenant_id, position) VALUES (%(tenant)s, 0)
"""
# Of the first `others` rows all are leased by claims of a minute ago, or, if not `flying`, all are scheduled for later. The rest is due.
ROWS = (
    """
INSERT INTO payments_payment (tenant_id, id, correlation_id, fingerprint, amount, currency, description, wanted_processor, status,
    sequence, code, refunded, attempt, run_at, lease_id, leased_until)
SELECT %(tenant)s, n, gen_random_uuid(), '', 1990, 'BRL', '', '', CASE WHEN {claimed} THEN 'processing' ELSE 'queued' END,
    1, '', 0, 0, {run_at}, {lease}
FROM generate_series(1, %(others)s + %(due)s) n;
INSERT INTO payments_refund (tenant_id, id, payment_id, public_id, number, fingerprint, amount, currency, reason, actor, external,
    processor_id, reference, status, code, run_at, lease_id, leased_until)
SELECT tenant_id, id, id, gen_random_uuid(), 1, '', 1, 'BRL', '', '', false, %(tenant)s, '', 'owed', '', run_at, lease_id, leased_until
FROM payments_payment;
INSERT INTO payments_inboundevent (tenant_id, id, processor_id, event_id, type, object_id, account, livemode, created, body, headers,
    source, status, run_at, lease_id, leased_until)
SELECT tenant_id, id, %(tenant)s, id::text, 't', '', '', false, now(), '', '{}', 'delivery', 'received', run_at, lease_id, leased_until
FROM payments_payment;
INSERT INTO queueing_webhookdelivery (tenant_id, id, endpoint_id, message_id, position, subject, type, body, ordered, status, run_at,
    lease_id, leased_until)
SELECT tenant_id, id, 1, id::text, id, gen_random_uuid(), 't', '', false, 'pending', run_at, lease_id, leased_until FROM payments_payment;
INSERT INTO queueing_job (tenant_id, id, uuid, kind, input, fingerprint, status, max_attempts, timeout, result_ttl, sequence, run_at,
    lease_id, leased_until)
SELECT tenant_id, id, gen_random_uuid(), 'http', '{}', '', CASE WHEN lease_id > 0 THEN 'running' ELSE 'queued' END, 1, 60, 60, 1,
    run_at, lease_id, leased_until
FROM payments_payment
""".replace(
        "{run_at}",
        "now() + CASE WHEN n > %(others)s THEN interval '0' WHEN %(flying)s THEN interval '-1 minute' ELSE interval '1 hour' END",
    )
    .replace("{lease}", "CASE WHEN {claimed} THEN 77 END, CASE WHEN {claimed} THEN now() + interval '1 minute' END")
    .replace("{claimed}", "%(flying)s AND n <= %(others)s")
)

ABOVE = {"above": shares.MARGIN}  # as a claim asks soon after one that left nothing
LOOK = {"limit": 100, "below": 0.0, **ABOVE}
TAKE = {"tenants": [TENANT], "quotas": [DUE], **ABOVE}
WORKER = {"worker": 7, "lease": 30.0}
WORK = jobs.JobWork()
WORK.worker_id = 7
STATEMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "payments due": (PAYMENTS.due, LOOK),
    "payments take": (PAYMENTS.take, TAKE),
    "payments take_divided": (TAKE_DIVIDED, {**TAKE, "firsts": [True], "parts": ["p1"], "included": True, "accounts": [TENANT]}),
    "refunds due": (refunds.REFUNDS.due, LOOK),
    "refunds take": (refunds.REFUNDS.take, TAKE),
    "inbound due": (inbound.INBOUND.due, LOOK),
    "inbound take": (inbound.INBOUND.take, TAKE),
    "deliveries due": (outbound.SQL["due"], LOOK),
    "deliveries take": (outbound.SQL["take"], {**TAKE, **WORKER, "endpoints": [1]}),
    "jobs due": (jobs.SQL["due"], {**LOOK, "kinds": ["http"]}),
    "jobs take": (jobs.SQL["take"], {**WORK._quotas_of({(TENANT, "http"): DUE}), **ABOVE}),
}  # fmt: skip


def buffers(bed: Bed, sql: str, params: dict[str, Any]) -> tuple[int, int]:
    """Pages that the statement reads, once its plan and what it needs are known; and its rows."""
    for _ in range(2):
        bed.run("SAVEPOINT before")
        [[found]] = bed.conn.cursor().execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", params).fetchall()
        bed.run("ROLLBACK TO before")
    plan = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], round(plan["Actual Rows"])


def costs(others: int, *, flying: bool, settled: bool = False) -> dict[str, tuple[int, int]]:
    with undone(TABLES) as bed:
        bed.empty(restored=False)
        given = {"tenant": TENANT, "others": others, "flying": flying, "due": DUE}
        bed.fill(OWNER, given)
        bed.fill(ROWS, given)
        if settled:  # their index entries remain, as for a transaction that began before
            bed.run("UPDATE payments_payment SET status = 'succeeded' WHERE id <= %(others)s", given)
        return {name: buffers(bed, *asked) for name, asked in STATEMENTS.items()}


@pytest.mark.parametrize(("others", "settled"), [(300, False), (2000, False), (2000, True)])
def test_a_claim_costs_the_same_however_many_rows_are_in_flight_or_finished(
    _database: None, others: int, settled: bool
) -> None:
    none = costs(others, flying=False)  # the index is as large

    found = costs(others, flying=True, settled=settled)

    print("\n".join(f"{name:24}{none[name][0]:6}{found[name][0]:6}" for name in found))
    assert {name: rows for name, (_, rows) in found.items()} == {name: rows for name, (_, rows) in none.items()}
    pages = {kind: (claim_of(kind, none), claim_of(kind, found)) for kind in KINDS}
    assert {kind: both for kind, both in pages.items() if both[1] > 1.2 * both[0] + DESCENTS} == {}


def claim_of(kind: str, costs: dict[str, tuple[int, int]]) -> int:
    return costs[f"{kind} due"][0] + costs[f"{kind} take"][0]


# -- What is below the floor --------------------------------------------------------------------------------------


@pytest.fixture
async def work(tenant):
    await in_thread(make_processor, tenant)
    found = PaymentWork()
    yield found
    await found.close()


async def drained(work: PaymentWork) -> None:
    """Claim until nothing is left, so that there is a floor."""
    while await work.claim(1, 100):
        work.shares.forget()
    work.shares.forget()
    assert await work.claim(1, 100) == []
    assert work.shares.above is not None


async def claimed(work: PaymentWork) -> list:
    work.shares.forget()
    return await work.claim(1, 100)


async def test_rows_that_come_later_are_claimed_at_once(tenant, work, monkeypatch):
    monkeypatch.setattr(shares, "LOOK_EVERY", 3600.0)
    await seed(tenant, 5)
    await drained(work)

    await seed(tenant, 3)

    assert len(await claimed(work)) == 3


async def test_a_row_whose_commit_took_long_is_found_by_the_next_look(tenant, work):
    await seed(tenant, 5)
    await drained(work)

    await seed(tenant, 3, due="now() - interval '1 minute'")
    at_once = await claimed(work)
    after = await eventually(lambda: claimed(work))

    assert (len(at_once), len(after)) == (0, 3)


async def test_a_lease_that_ended_is_found_by_the_next_look(tenant, work):
    await seed(tenant, 5, due="now() - interval '1 minute'")
    await drained(work)

    await database.fetch("UPDATE payments_payment SET leased_until = now() - interval '1 ms'")

    assert len(await eventually(lambda: claimed(work))) == 5


async def test_rows_of_a_share_at_its_limit_stay_above_the_floor(tenant, work, monkeypatch):
    monkeypatch.setattr(shares, "LOOK_EVERY", 3600.0)
    work.share_limit = 5
    await seed(tenant, 12, due="now() - interval '1 minute'")

    first = await claimed(work)
    full = await claimed(work)
    work.release(first)
    second = await claimed(work)
    work.release(second)
    last = await claimed(work)

    assert [len(found) for found in (first, full, second, last)] == [5, 0, 5, 2]


async def test_a_tenant_with_rows_left_keeps_the_floor_below_them(tenant, work, monkeypatch):
    monkeypatch.setattr(shares, "LOOK_EVERY", 3600.0)
    other = await in_thread(make_tenant)
    await in_thread(make_processor, other)
    await seed(tenant, 12, due="now() - interval '1 minute'")
    await seed(other, 1, due="now() - interval '1 minute'")

    found = [await work.claim(1, 10) for _ in range(4)]

    assert sum(map(len, found)) == 13


async def test_a_claim_that_failed_leaves_its_rows_above_the_floor(tenant, work, monkeypatch):
    monkeypatch.setattr(shares, "LOOK_EVERY", 3600.0)
    await seed(tenant, 5)
    await drained(work)
    await seed(tenant, 3)
    begin = work.begin

    async def failing(conn: Any, items: Any) -> list:
        raise RuntimeError("the connection broke")

    monkeypatch.setattr(work, "begin", failing)
    with pytest.raises(RuntimeError):
        await claimed(work)
    monkeypatch.setattr(work, "begin", begin)
    await asyncio.sleep(shares.MARGIN + 0.1)  # so that they would be below a floor

    assert len(await claimed(work)) == 3


async def test_a_retry_at_once_is_above_the_floor(tenant, work, monkeypatch):
    monkeypatch.setattr(shares, "LOOK_EVERY", 3600.0)
    await seed(tenant, 1, due="now() - interval '1 minute'")
    [claim] = await claimed(work)
    work.shares.forget()
    await drained(work)

    await work.give_back([claim])

    assert [one.payment_id for one in await claimed(work)] == [claim.payment_id]
