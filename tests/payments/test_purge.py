"""A purge deletes a sandbox tenant's payments, and nothing of live or other tenants."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone

from payments.books import purge as purging
from payments.errors import LiveTenant
from payments.models import Attempt, DeadLetter, Difference, LedgerEntry, Payment, PaymentEvent, Rollup
from payments.refunds import refunds
from payments.states import SUCCEEDED
from registry.data import database
from registry.errors import Unavailable
from registry.models import Tenant
from tests.conftest import Api, at_work, eventually, make_key
from tests.factories import in_thread, make_dead_letter, make_payment, make_processor, make_tenant
from tests.payments.refunding import booked
from tests.registry.test_database import fresh_pool, with_options  # noqa: F401 - a fixture
from tests.settling import settle_all

OWNED = (Payment, PaymentEvent, Attempt, LedgerEntry, Rollup, DeadLetter, Difference)


async def purge(api: Api) -> tuple[int, dict[str, Any]]:
    async with api.post("/purge-payments") as response:
        return response.status, await response.json(content_type=None)


async def left(tenant: Tenant) -> dict[str, int]:
    async with database.own_connection():
        return {kind.__name__: await kind.async_objects.filter(tenant_id=tenant.pk).acount() for kind in OWNED}


async def summary(api: Api) -> dict[str, Any]:
    async with api.get("/payments-summary") as response:
        return await response.json()


async def test_a_purge_deletes_everything_of_a_sandbox_tenant(api: Api, tenant, default):
    for _ in range(3):
        await api.pay()
    await settle_all(tenant)
    await api.pay(scheduledFor="2026-12-01T00:00:00Z")
    await in_thread(lambda: make_dead_letter(make_payment(tenant)))
    await in_thread(
        lambda: Difference.objects.create(
            tenant=tenant, processor=tenant.processors.get(), kind="missing_here", key="x", requested_at=timezone.now()
        )
    )

    answer = await purge(api)

    assert answer == (200, {"message": "All payments purged.", "payments": 5})
    assert set((await left(tenant)).values()) == {0}
    assert await summary(api) == {"default": {"totalRequests": 0, "totalAmount": 0}}


async def test_a_purge_deletes_nothing_of_other_tenants(api: Api, stranger: Api, tenant):
    theirs = await stranger.pay()

    await purge(api)

    assert (await stranger.status(theirs["correlationId"]))["status"] == "queued"


async def test_a_purged_id_is_free_again(api: Api):
    payment = await api.pay()
    await purge(api)

    async with api.post("/payments", json={"correlationId": payment["correlationId"], "amount": "1.00"}) as response:
        assert response.status == 202
        assert "Idempotent-Replayed" not in response.headers


async def test_the_numbers_of_the_stream_continue_after_a_purge(api: Api, tenant):
    await api.pay()
    await api.pay()
    await purge(api)
    await api.pay()

    async with database.own_connection():
        positions = [
            p async for p in PaymentEvent.async_objects.filter(tenant_id=tenant.pk).values_list("position", flat=True)
        ]

    assert positions == [3]


async def test_a_live_tenant_cannot_be_purged(server: str):
    tenant = await in_thread(make_tenant, mode="live")
    async with Api(server, await make_key(tenant)) as api:
        await api.pay()

        status, said = await purge(api)

    assert (status, said["title"]) == (403, "Payments of a live tenant cannot be purged")
    assert (await left(tenant))["Payment"] == 1


async def test_a_tenant_that_has_just_gone_live_is_not_purged_by_a_cached_mode(api: Api, tenant):
    await api.pay()
    await in_thread(Tenant.objects.filter(pk=tenant.pk).update, mode="live")

    status, _ = await purge(api)

    assert status == 403
    assert (await left(tenant))["Payment"] == 1


async def test_a_purge_waits_for_a_concurrent_go_live_and_then_deletes_nothing(tenant):
    await in_thread(make_payment, tenant)

    async with database.transaction() as conn:
        await conn.execute("UPDATE registry_tenant SET mode = 'live' WHERE id = %s", [tenant.pk])
        removal = asyncio.create_task(purging.purge(tenant_id=tenant.pk))
        await eventually(a_purge_waits)

    with pytest.raises(LiveTenant):
        await removal
    assert (await left(tenant))["Payment"] == 1


async def a_purge_waits() -> bool:
    sql = """SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
        AND query LIKE '%%FOR SHARE%%'"""
    return bool(await database.fetch(sql))


async def test_a_key_that_may_only_read_cannot_purge(server: str, tenant, api: Api):
    await api.pay()
    async with Api(server, await make_key(tenant, "read")) as reader:
        status, _ = await purge(reader)

    assert status == 403
    assert (await left(tenant))["Payment"] == 1


async def test_payments_accepted_and_settled_during_purges_stay_consistent(api: Api, tenant, default):
    async def accept() -> None:
        for _ in range(15):
            await api.pay()

    async def purge_again_and_again() -> None:
        for _ in range(6):
            await purge(api)

    async with at_work():
        await asyncio.gather(accept(), accept(), purge_again_and_again(), accept(), purge_again_and_again())

    assert await in_thread(orphans, tenant) == 0
    rolled = await in_thread(rolled_up, tenant)
    assert rolled[0] == rolled[1]


def orphans(tenant: Tenant) -> int:
    """Rows that hang on a payment that is gone."""
    tables = ("payments_paymentevent", "payments_ledgerentry", "payments_attempt", "payments_deadletter")
    counts = " + ".join(
        f"(SELECT count(*) FROM {table} t WHERE tenant_id = {tenant.pk} AND NOT EXISTS (SELECT FROM payments_payment p"
        " WHERE p.tenant_id = t.tenant_id AND p.id = t.payment_id))"
        for table in tables
    )
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {counts}")
        return cursor.fetchone()[0]


def rolled_up(tenant: Tenant) -> tuple[tuple, tuple]:
    """Booked payments by the roll-ups, and one by one."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(sum(payments), 0), coalesce(sum(amount), 0) FROM payments_rollup WHERE width = 1 AND tenant_id = %s",
            [tenant.pk],
        )
        rolled = cursor.fetchone()
        cursor.execute(
            "SELECT count(*), coalesce(sum(amount), 0) FROM payments_payment WHERE closed = 'succeeded' AND tenant_id = %s",
            [tenant.pk],
        )
        return rolled, cursor.fetchone()


# -- Large ones ------------------------------------------------------------------------------------------------------

MANY = 400

SLOW_DELETES = """
    CREATE OR REPLACE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.001); RETURN OLD; END $$;
    CREATE TRIGGER slowly BEFORE DELETE ON payments_payment FOR EACH ROW EXECUTE FUNCTION slowly();
"""


@pytest.fixture
async def large(tenant: Tenant, fresh_pool, settings) -> AsyncIterator[Tenant]:  # noqa: F811 - the fixture
    """A tenant whose payments cannot be deleted within the statement time-out of 0.3 s."""
    processor = await in_thread(make_processor, tenant, "default")
    await in_thread(lambda: [make_payment(tenant, status=SUCCEEDED, processor=processor) for _ in range(3)])
    now = timezone.now()
    common = {"tenant": tenant, "fingerprint": bytes(16), "amount": 1990, "currency": "BRL", "run_at": now}
    rows = (Payment(**common, correlation_id=uuid4(), created_at=now, changed_at=now) for _ in range(MANY))
    await in_thread(Payment.objects.bulk_create, rows)
    await in_thread(execute, SLOW_DELETES)
    options = settings.DATABASES["default"]["OPTIONS"]
    limited = {**options, "options": options["options"].replace("statement_timeout=30000", "statement_timeout=300")}
    try:
        with with_options(limited):
            yield tenant
    finally:
        await in_thread(execute, "DROP TRIGGER slowly ON payments_payment")


def execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


async def test_a_sandbox_too_large_for_one_statement_is_emptied_by_one_call(large: Tenant, monkeypatch):
    monkeypatch.setattr(purging, "SLICE", 10 * MANY)
    with pytest.raises(Unavailable):
        await purging.purge(tenant_id=large.pk)
    assert (await left(large))["Payment"] == MANY + 3

    monkeypatch.setattr(purging, "SLICE", 50)
    purged = await purging.purge(tenant_id=large.pk)

    assert purged == (MANY + 3, 0)
    assert set((await left(large)).values()) == {0}


async def test_a_purge_that_runs_out_of_time_returns_the_rest_and_the_next_continues(api: Api, tenant, monkeypatch):
    monkeypatch.setattr(purging, "SLICE", 2)
    monkeypatch.setattr(purging, "WITHIN", 0.0)
    for _ in range(5):
        await api.pay()

    answers = [await purge(api) for _ in range(4)]

    assert [(status, said["payments"], said.get("left", 0)) for status, said in answers] == [
        (202, 2, 3), (202, 2, 1), (200, 1, 0), (200, 0, 0),
    ]  # fmt: skip


async def test_an_interrupted_purge_leaves_consistent_sums(api: Api, tenant, default, monkeypatch):
    monkeypatch.setattr(purging, "SLICE", 2)
    for _ in range(5):
        await api.pay()
    await settle_all(tenant)

    purged = await purging.purge(tenant_id=tenant.pk, within=0.0)

    rolled = await in_thread(rolled_up, tenant)
    assert purged == (2, 3)
    assert rolled[0] == rolled[1] == (3, 3 * 1990)
    assert await in_thread(orphans, tenant) == 0


async def test_a_refund_that_is_claimed_during_a_purge_is_deleted_too(tenant):
    """A claim locks no payment."""
    await in_thread(make_processor, tenant)
    [payment] = await booked(tenant)
    await refunds.refund(tenant_id=tenant.pk, correlation_id=payment, amount=100)
    async with database.transaction() as conn:
        await conn.execute(
            "UPDATE payments_refund SET status = 'processing', attempt = 1 WHERE tenant_id = %s", [tenant.pk]
        )
        purging_now = asyncio.create_task(purging.purge(tenant_id=tenant.pk))
        await eventually(a_session_waits_for_a_lock)

    assert await purging_now == (1, 0)
    assert await database.fetch("SELECT id FROM payments_refund WHERE tenant_id = %s", [tenant.pk]) == []


async def a_session_waits_for_a_lock() -> bool:
    sql = """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
        AND pid <> pg_backend_pid()"""
    return (await database.fetch(sql))[0][0] > 0


LINES = """
INSERT INTO payments_ledgerentry (tenant_id, payment_id, processor_id, account, amount, currency, at, cause)
SELECT %(tenant)s, n, 1, 'balance', 1, 'BRL', now(), 'payment' FROM generate_series(1, 10000) n"""
READ = "SELECT sum(pg_stat_get_xact_tuples_returned(indexrelid))::bigint FROM pg_index WHERE indrelid = %s::regclass"


async def test_a_slice_reads_the_rows_of_its_payments_only_though_the_tables_were_never_analysed(tenant):
    asked = {"tenant": tenant.pk, "ids": list(range(1, 1001)), "correlations": []}
    async with database.transaction() as conn:  # what is not committed no autovacuum can analyse
        await database.rows(conn, LINES, {"tenant": tenant.pk})
        await database.rows(conn, purging.SQL["purge_children"], asked)
        [[read]] = await database.rows(conn, READ, ["payments_ledgerentry"])

    assert read <= 2 * len(asked["ids"])


async def test_a_processor_outlives_the_purge(api: Api, tenant):
    await in_thread(make_processor, tenant, "kept")

    await purge(api)

    assert set(await summary(api)) == {"kept"}
