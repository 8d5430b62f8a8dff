"""Spilled payments: stored once with their time of acceptance, conflicts quarantined, and intake by stream."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from redis.asyncio import Redis

from payments.billing import readiness
from payments.errors import DifferentContent
from payments.intake import intake, recent, spilling
from payments.intake.payment import NewPayment, Receipt, Submission, fingerprint
from payments.intake.spilling import KIND
from payments.models import Payment
from queueing import spill
from registry.data import database, db_breaker, identity
from registry.data.loop import end_loop
from registry.errors import Unavailable
from registry.models import Tenant
from registry.tenants import access
from tests.conftest import Api, eventually
from tests.factories import in_thread, make_processor, make_tenant

ACCEPTED = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


@pytest.fixture
async def fresh_spill(settings, tmp_path: Path) -> AsyncIterator[Path]:
    """A spill of the test's own, empty before and closed afterwards."""
    await spill.loops.close()
    settings.SPILL_FOLDER = tmp_path
    yield tmp_path
    await spill.loops.close()
    spilling.waiting.clear()


@pytest.fixture
async def no_database(fresh_spill: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """The breaker is open, and its probe finds nobody."""
    monkeypatch.setattr(db_breaker.current(), "away", True)
    yield


def order(tenant: Tenant, **fields: Any) -> NewPayment:
    return NewPayment(
        **{"tenant_id": tenant.pk, "correlation_id": uuid4(), "amount": 1990, "currency": "BRL", **fields}
    )


def record(order: NewPayment, at: datetime = ACCEPTED) -> bytes:
    return msgspec.msgpack.encode(Submission(order, fingerprint(order), at))


async def found(tenant: Tenant) -> list[Payment]:
    async with database.own_connection():
        return [payment async for payment in Payment.async_objects.filter(tenant=tenant).order_by("id")]


async def nothing_waits() -> None:
    async def empty() -> bool:
        return not any(now.records for now in await spill.state() if now.kind == KIND)

    await eventually(empty)


async def reasons() -> list[str]:
    return [one.reason for one in await spill.quarantined(KIND)]


async def test_all_fields_of_a_spilled_payment_are_stored_with_its_time_of_acceptance(
    tenant: Tenant, fresh_spill: Path
):
    tomorrow = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    full = order(
        tenant, amount=2**53 + 1, description="Ação № 7", processor="default", scheduled_for=tomorrow, priority=9,
        metadata={"text": "ü", "whole": 2**63 - 1, "fraction": 0.1, "yes": True, "nothing": None},
    )  # fmt: skip

    await spill.append(KIND, tenant.pk, record(full))
    await spill.append(KIND, tenant.pk, record(second := order(tenant)))
    await nothing_waits()

    one, two = await found(tenant)
    assert (one.amount, one.currency, one.description) == (full.amount, full.currency, full.description)
    assert (one.metadata, one.wanted_processor, one.scheduled_for) == (full.metadata, "default", tomorrow)
    assert (one.priority, bytes(one.fingerprint)) == (9, fingerprint(full))
    assert one.run_at == tomorrow
    assert two.run_at > ACCEPTED  # due by the server's clock, when it was stored
    assert (one.created_at, two.created_at, two.correlation_id) == (ACCEPTED, ACCEPTED, second.correlation_id)


async def test_a_payment_whose_commit_was_not_acknowledged_is_stored_once_and_not_quarantined(
    tenant: Tenant, fresh_spill: Path
):
    committed = order(tenant)
    receipt = await intake.submit(committed)

    await spill.append(KIND, tenant.pk, record(committed, receipt.created_at))
    await nothing_waits()
    again = await intake.submit(committed)

    assert len(await found(tenant)) == 1
    assert (await reasons(), again.replayed, again.created_at) == ([], True, receipt.created_at)


async def test_other_content_under_a_known_id_and_bad_records_are_quarantined_with_the_reason(
    tenant: Tenant, fresh_spill: Path
):
    known = order(tenant)
    await intake.submit(known)
    other = order(tenant, correlation_id=known.correlation_id, amount=1)
    good = [order(tenant), order(tenant)]
    broken = order(tenant, description="no \0 in PostgreSQL")

    appends = [record(good[0]), record(other), b"not a payment", record(broken), record(good[1])]
    await asyncio.gather(*(spill.append(KIND, tenant.pk, data) for data in appends))
    await nothing_waits()

    assert [p.correlation_id for p in await found(tenant)] == [o.correlation_id for o in (known, *good)]
    said = sorted(await reasons())
    assert len(said) == 3
    assert any(reason.startswith("409 A payment with this correlation id exists") for reason in said)
    assert any("NUL" in reason or "0x00" in reason for reason in said)


async def test_a_clock_ahead_of_the_servers_does_not_delay_a_payment(tenant: Tenant, fresh_spill: Path):
    await spill.append(KIND, tenant.pk, record(order(tenant), datetime.now(UTC) + timedelta(hours=1)))
    await nothing_waits()

    [payment] = await found(tenant)
    assert payment.run_at <= datetime.now(UTC)
    assert payment.created_at == payment.run_at


async def test_during_an_outage_no_caller_waits_and_spilled_ids_are_known(tenant: Tenant, no_database: None):
    first = order(tenant)
    other = order(tenant, correlation_id=first.correlation_id, amount=1)

    receipts = [await intake.submit(first), await intake.submit(first)]
    with pytest.raises(DifferentContent):
        await intake.submit(other)
    together = await intake.submit_many([fresh := order(tenant), fresh])

    assert [receipt.replayed for receipt in receipts] == [False, True]
    assert receipts[0].created_at == receipts[1].created_at
    assert [receipt.replayed for receipt in together if isinstance(receipt, Receipt)] == [False, True]


async def test_during_an_outage_an_id_that_was_stored_before_it_keeps_its_content(
    tenant: Tenant, fresh_spill: Path, monkeypatch: pytest.MonkeyPatch
):
    first = order(tenant)
    other = msgspec.structs.replace(first, amount=1)
    await intake.submit(first)

    monkeypatch.setattr(db_breaker.current(), "away", True)
    results = await intake.submit_many([other, first, order(tenant), other])

    assert [type(result) for result in results] == [DifferentContent, Receipt, Receipt, DifferentContent]
    assert [one.spilled for one in results if isinstance(one, Receipt)] == [True, True]


async def test_ids_of_payments_that_left_the_spill_keep_their_content_during_the_next_outage(
    tenant: Tenant, fresh_spill: Path, monkeypatch: pytest.MonkeyPatch
):
    first = order(tenant)
    with monkeypatch.context() as outage:
        outage.setattr(db_breaker.current(), "away", True)
        await intake.submit(first)
    await nothing_waits()

    monkeypatch.setattr(db_breaker.current(), "away", True)

    with pytest.raises(DifferentContent):
        await intake.submit(msgspec.structs.replace(first, amount=1))


async def test_the_latest_ids_are_remembered_and_no_more(tenant: Tenant, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recent, "KEPT", 2)
    payments = [order(tenant) for _ in range(3)]
    recent.remember({(one.tenant_id, one.correlation_id): fingerprint(one) for one in payments})

    others = [msgspec.structs.replace(one, amount=1) for one in payments]
    known = [recent.has_other_content(Submission(one, fingerprint(one), ACCEPTED)) for one in others]

    assert known == [False, True, True]


class _EmptiedByAnotherThread(OrderedDict):
    """Loses each key at once, as if the loop of another thread had removed it."""

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        del self[key]


async def test_an_id_that_another_threads_loop_forgets_meanwhile_is_no_error(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(recent, "_fingerprints", _EmptiedByAnotherThread())
    one = order(tenant)

    recent.remember({(one.tenant_id, one.correlation_id): fingerprint(one)})

    assert not recent.has_other_content(Submission(one, b"other", ACCEPTED))


async def test_ids_spilled_by_a_dead_process_are_known_to_the_process_that_takes_over(
    tenant: Tenant, no_database: None
):
    first = order(tenant)
    receipt = await intake.submit(first)
    await spill.loops.close()  # as a death leaves it: the folder stays, its lock is gone
    spilling.waiting.clear()

    await spill.start()
    again = await intake.submit(first)
    with pytest.raises(DifferentContent):
        await intake.submit(order(tenant, correlation_id=first.correlation_id, amount=1))

    assert (again.replayed, again.created_at) == (True, receipt.created_at)


async def test_a_record_spilled_by_a_thread_on_its_own_loop_is_drained_by_the_service(
    tenant: Tenant, fresh_spill: Path, monkeypatch: pytest.MonkeyPatch
):
    given = order(tenant)
    with monkeypatch.context() as patch:
        patch.setattr(db_breaker.DatabaseBreaker, "attempt", _away)
        # One made for this call: the thread has no server's loop to go to.
        receipt = await asyncio.to_thread(lambda: asyncio.run(_on_its_own(given)))

    await spill.start()
    await nothing_waits()

    assert [(p.correlation_id, p.created_at) for p in await found(tenant)] == [
        (given.correlation_id, receipt.created_at)
    ]


async def _away(*_: Any, **__: Any) -> None:
    raise Unavailable("away")


async def _on_its_own(given: NewPayment) -> Receipt:
    try:
        return await intake.submit(given)
    finally:
        await end_loop()


async def test_a_full_spill_returns_503_and_the_id_stays_free(
    settings, api: Api, tenant: Tenant, fresh_spill: Path, monkeypatch: pytest.MonkeyPatch
):
    await api.pay()  # the key is known
    settings.SPILL_MAX_BYTES = 1000
    body = {"correlationId": str(uuid4()), "amount": "1.00", "description": "x" * 490}
    with monkeypatch.context() as patch:
        patch.setattr(db_breaker.current(), "away", True)
        statuses = []
        while 503 not in statuses:
            last = {**body, "correlationId": str(uuid4())}
            async with api.post("/payments", json=last) as response:
                statuses.append(response.status)
                refusal = (response.headers.get("Retry-After"), response.content_type)
    await nothing_waits()
    async with api.post("/payments", json={**last, "amount": "2.00"}) as response:
        after = response.status

    assert statuses == [202, 503]
    assert refusal == ("1", "application/problem+json")
    assert after == 202


# -- INTAKE=stream -------------------------------------------------------------------------------------------------


@pytest.fixture
async def stream_intake(settings, fresh_spill: Path) -> AsyncIterator[Any]:
    async with Redis.from_url(settings.REDIS_URL) as redis:
        await _forget(redis)
        settings.INTAKE = "stream"
        yield settings
        settings.INTAKE = "direct"
        await spill.loops.close()
        await _forget(redis)


async def _forget(redis: Redis) -> None:
    if names := [name async for name in redis.scan_iter(f"{identity.prefix()}:spill:{KIND}:*")]:
        await redis.delete(*names)


async def test_with_intake_by_stream_a_payment_is_accepted_before_a_worker_stores_it(
    api: Api, tenant: Tenant, stream_intake: Any
):
    answers = [await api.pay(amount) for amount in ("1.00", "2.00", "3.00")]
    before = await found(tenant)
    [state] = [now for now in await spill.state() if now.engine == "stream"]

    async with spill.drain_shared():
        await eventually(lambda: _many(tenant, 3))

    after = await found(tenant)
    assert before == []
    assert state.records == 3
    assert [str(payment.correlation_id) for payment in after] == [answer["correlationId"] for answer in answers]
    assert [payment.amount for payment in after] == [100, 200, 300]


async def test_with_intake_by_stream_a_worker_quarantines_other_content_under_a_known_id(
    api: Api, tenant: Tenant, stream_intake: Any
):
    name = (await api.pay("1.00"))["correlationId"]
    await api.pay("1.00", correlationId=name)
    await api.pay("9.00", correlationId=name)
    await api.pay("2.00")

    async with spill.drain_shared():
        await eventually(lambda: _many(tenant, 2))
    stream_intake.SPILL = "stream"  # what the stream's engine set aside
    await spill.loops.close()

    assert [payment.amount for payment in await found(tenant)] == [100, 200]
    assert [reason[:3] for reason in await reasons()] == ["409"]


async def test_with_intake_by_stream_payments_are_stored_directly_without_redis(
    api: Api, tenant: Tenant, stream_intake: Any
):
    stream_intake.SPILL_REDIS_URL = "redis://127.0.0.1:1/0"

    await api.pay()

    assert len(await found(tenant)) == 1


async def _many(tenant: Tenant, wanted: int) -> bool:
    return len(await found(tenant)) == wanted


async def clean_books(tenant: Tenant) -> readiness.ReadinessCheck:
    """Whether nothing of play would stand in the books of a tenant that goes live."""
    async with database.own_connection():
        return next(check for check in await readiness.look(tenant) if check.name == "books")


async def test_a_tenant_does_not_go_live_while_its_sandbox_payments_are_spilled(tenant: Tenant, no_database: None):
    other = await in_thread(make_tenant)

    await intake.submit(order(tenant))

    mine, theirs = await clean_books(tenant), await clean_books(other)
    assert (mine.ok, theirs.ok) == (False, True)
    assert "the spill holds sandbox payments" in mine.detail


async def test_quarantined_sandbox_payments_keep_a_tenant_from_going_live_until_they_are_dropped(
    tenant: Tenant, fresh_spill: Path
):
    await spill.append(KIND, tenant.pk, b"not a payment")
    await nothing_waits()
    before = await clean_books(tenant)

    for one in await spill.quarantined(KIND):
        await spill.drop(KIND, one.id)

    assert (before.ok, (await clean_books(tenant)).ok) == (False, True)


async def test_a_spilled_payment_is_not_reported_as_unknown(api: Api, tenant: Tenant, monkeypatch: pytest.MonkeyPatch):
    """A server that takes no writes answers questions, and knows nothing of it yet."""
    stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting = spilling.SpilledPayment(b"", ACCEPTED, "BRL", stored)
    monkeypatch.setitem(spilling.waiting, (tenant.pk, waits := uuid4()), waiting)
    answers: dict[str, Any] = {}
    for path in ("status", "", "refunds", "events?wait=1"):
        async with api.get(f"/payments/{waits}/{path}".rstrip("/")) as response:
            answers[path] = response.status
    for path in ("cancel", "capture", "refunds"):
        async with api.post(f"/payments/{waits}/{path}", json={}) as response:
            answers[f"POST {path}"] = (response.status, response.headers.get("Retry-After"))

    assert set(answers.values()) == {503, (503, "1")}


async def test_a_payment_that_is_not_durable_yet_is_not_confirmed(tenant: Tenant, monkeypatch: pytest.MonkeyPatch):
    key = (tenant.pk, uuid4())
    durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    monkeypatch.setitem(spilling.waiting, key, spilling.SpilledPayment(b"", ACCEPTED, "BRL", durable))

    before = spilling.accepted([key])
    durable.set_result(None)

    assert (before, list(spilling.accepted([key]))) == ({}, [key])


# -- Payments that name a processor ----------------------------------------------------------------------------------


async def test_during_an_outage_a_cached_name_of_a_processor_is_accepted_and_another_is_not(
    api: Api, tenant: Tenant, fresh_spill: Path, monkeypatch: pytest.MonkeyPatch
):
    await in_thread(make_processor, tenant, "mine")
    await api.pay(processor="mine")
    monkeypatch.setattr(db_breaker.current(), "away", True)

    async with api.post("/payments", json={"amount": "1.00", "processor": "nobody"}) as response:
        nobody = response.status

    assert (await api.pay(processor="mine"))["status"] == "queued"
    assert nobody == 422


async def test_during_an_outage_without_cached_processors_any_name_is_accepted(
    api: Api, tenant: Tenant, fresh_spill: Path, monkeypatch: pytest.MonkeyPatch
):
    await api.pay()  # the key is known
    monkeypatch.setattr(db_breaker.current(), "away", True)
    items = [{"amount": "1.00", **({"processor": "mine"} if n == 7 else {})} for n in range(100)]

    async with api.post("/payments/batch", json={"items": items}) as response:
        verdicts = (await response.json())["results"]

    assert {one["status"] for one in verdicts} == {"queued"}


async def test_during_an_outage_a_temporary_refusal_is_503_because_the_payment_may_have_been_accepted(
    api: Api, tenant: Tenant, fresh_spill: Path, monkeypatch: pytest.MonkeyPatch
):
    await in_thread(lambda: Tenant.objects.filter(pk=tenant.pk).update(max_amount=100))
    await api.pay("1.00")
    monkeypatch.setattr(db_breaker.current(), "away", True)
    large, small = {"correlationId": str(uuid4()), "amount": "9.00"}, {"correlationId": str(uuid4()), "amount": "0.50"}
    items = [large, {"amount": "1.00"}, small, {**small, "amount": "0.60"}]

    async with api.post("/payments", json=large) as response:
        alone = response.status
    async with api.post("/payments/batch", json={"items": items}) as response:
        verdicts = (await response.json())["results"]
    async with api.post("/payments", json={"amount": "9.00"}) as response:
        new = response.status

    assert (alone, new) == (503, 422)
    assert [one["status"] for one in verdicts] == ["invalid", "queued", "queued", "conflict"]
    assert "send it again" in verdicts[0]["error"]["detail"]


async def test_a_spilled_payment_is_replayed_although_its_tenant_has_another_currency_now(
    api: Api, tenant: Tenant, fresh_spill: Path, monkeypatch: pytest.MonkeyPatch
):
    await api.pay()
    monkeypatch.setattr(db_breaker.current(), "away", True)
    body = {"correlationId": str(uuid4()), "amount": "19.90"}
    async with api.post("/payments", json=body) as response:
        first = await response.json()
    for entry in access._keys.loops.get().entries.values():  # as a process has it that heard of the change before
        entry.value = entry.value and replace(entry.value, currency="JPY")

    async with api.post("/payments", json=body) as response:
        assert (response.status, response.headers["Idempotent-Replayed"]) == (202, "true")
        assert await response.json() == first
