"""Payments that were slow or failed: the line that says where the time went, and spans made afterwards from what is stored."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from payments.books.history import HistoryEvent
from payments.settle import slow
from payments.states import PROCESSING, QUEUED, REQUIRES_ACTION, SUCCEEDED, Status
from registry.data import database, live
from registry.tenants.sampling import TracedObject
from tests.conftest import eventually
from tests.settling import settle_due, settle_one, tries
from tests.tracing import received

UNSAMPLED = 1e-12  # a rate at which no payment of a test is sampled
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
async def _nothing_is_left_to_explain():
    yield
    await slow._loops.close()


def lines(caplog: pytest.LogCaptureFixture, message: str = "slow payment") -> list[Any]:
    return [record for record in caplog.records if record.message == message]


def trace_of(tenant: Any, payment: dict[str, Any]) -> str:
    return TracedObject("payment", tenant.pk, UUID(payment["correlationId"])).first.shown_id


async def slow_one(api: Any, default: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A payment whose processor takes longer than is quick."""
    monkeypatch.setattr(slow, "LIMIT", 0.1)
    default.delays(150)
    payment = await api.pay()
    await settle_one(api, payment)
    return payment


# -- The line ------------------------------------------------------------------------------------------------------


async def test_a_slow_payment_is_a_line_that_says_where_its_time_went(api, tenant, default, monkeypatch, caplog):
    payment = await slow_one(api, default, monkeypatch)
    [line] = await eventually(lambda: lines(caplog))

    assert (line.levelno, line.tenant, line.payment) == (logging.WARNING, tenant.pk, payment["correlationId"])
    assert (line.status, line.attempts, line.processor) == ("succeeded", 1, "default")
    assert 0.15 <= line.seconds_at_processors <= line.seconds_processing <= line.seconds
    assert line.seconds_queued + line.seconds_processing == pytest.approx(line.seconds, abs=0.05)
    assert not hasattr(line, "trace_id")


async def test_a_quick_payment_is_no_line(api, default, caplog):
    await settle_one(api, await api.pay())

    assert slow._loops.peek() is None
    assert lines(caplog) == []


async def test_a_payment_is_late_from_the_date_that_it_was_scheduled_for(api, tenant, default, monkeypatch, caplog):
    monkeypatch.setattr(slow, "LIMIT", 5)
    payment = await api.pay(scheduledFor=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    await database.fetch(
        """UPDATE payments_payment SET run_at = now(), created_at = now() - interval '1 hour', scheduled_for = now() - interval '1 second'
        WHERE tenant_id = %s""",
        [tenant.pk],
    )
    await settle_one(api, payment)

    assert slow._loops.peek() is None
    assert lines(caplog) == []


def test_the_time_that_a_payer_takes_is_counted_apart():
    def event(sequence: int, seconds: float, status: Status, kind: str = "") -> HistoryEvent:
        return HistoryEvent(sequence=sequence, at=NOON + timedelta(seconds=seconds), status=status, kind=kind)

    events = [
        event(1, -60, QUEUED), event(2, 1, PROCESSING), event(3, 3, REQUIRES_ACTION), event(4, 50, SUCCEEDED, "refund.created"),
        event(5, 100, PROCESSING), event(6, 104, SUCCEEDED),
    ]  # fmt: skip

    spent = slow.seconds_by_status(events, NOON, NOON + timedelta(seconds=104))

    assert spent == {QUEUED: 1, PROCESSING: 6, REQUIRES_ACTION: 97, SUCCEEDED: 0}


async def test_a_payment_that_waited_for_its_payer_is_not_slow(api, tenant, default, monkeypatch, caplog):
    monkeypatch.setattr(slow, "LIMIT", 5)
    explained: list[slow.Ended] = []
    real = slow.explain

    async def explain(ended: slow.Ended) -> None:
        await real(ended)
        explained.append(ended)

    monkeypatch.setattr(slow, "explain", explain)
    payment = await api.pay()
    await database.fetch(
        """UPDATE payments_payment SET created_at = now() - interval '60 seconds' WHERE tenant_id = %(tenant)s""",
        {"tenant": tenant.pk},
    )
    await database.fetch(
        """UPDATE payments_paymentevent SET at = now() - interval '60 seconds', status = 'requires_action' WHERE tenant_id = %(tenant)s""",
        {"tenant": tenant.pk},
    )
    await settle_one(api, payment)
    await eventually(lambda: explained)

    assert lines(caplog) == []


async def test_a_bad_hour_is_a_few_lines_and_the_number_of_the_others(api, tenant, default, monkeypatch, caplog):
    monkeypatch.setattr(slow, "LIMIT", 0.0)
    monkeypatch.setattr(slow, "WAITING", 2)
    monkeypatch.setattr(slow, "EXPLAINED", 1000)
    for _ in range(20):
        await api.pay()
    await settle_due()
    [more] = await eventually(lambda: lines(caplog, "more payments were slow or failed than are explained"))

    assert 0 < len(lines(caplog)) <= 4
    assert more.payments >= 16


# -- Spans afterwards ----------------------------------------------------------------------------------------------


async def test_a_slow_payment_outside_the_sample_has_its_spans_made_afterwards(
    api, tenant, default, monkeypatch, caplog
):
    async with received(rate=UNSAMPLED) as receiver:
        payment = await slow_one(api, default, monkeypatch)
        [line] = await eventually(lambda: lines(caplog))
        await eventually(lambda: len(receiver.spans) == 2)

    assert line.trace_id == trace_of(tenant, payment)
    first, send = receiver.of(line.trace_id)
    assert (first.name, first.parent, send.name, send.parent) == ("payment", "", "send payments", first.span_id)
    assert [name for name, _ in first.events] == ["queued", "processing", "succeeded"]
    assert first.start <= send.start < send.end <= first.end + 50_000_000
    assert send.end - send.start >= 150_000_000
    assert (first.failed, send.failed, send.attributes["registry.processor"]) == (False, False, "default")
    assert default.traceparents == [""]


async def test_a_failed_payment_outside_the_sample_has_a_span_for_each_attempt(api, tenant, default, quick, caplog):
    default.answers(400, times=1)
    async with received(rate=UNSAMPLED) as receiver:
        payment = await api.pay()
        await settle_one(api, payment, "failed")
        await eventually(lambda: len(receiver.spans) == 2)

    first, send = receiver.of(trace_of(tenant, payment))
    assert (first.failed, send.failed, send.attributes["error.type"]) == (True, True, "http_400")
    assert len(await tries(payment["correlationId"])) == 1
    assert lines(caplog) == []


async def test_a_sampled_payment_has_its_spans_once(api, tenant, default, monkeypatch, caplog):
    async with received() as receiver:
        payment = await slow_one(api, default, monkeypatch)
        [line] = await eventually(lambda: lines(caplog))
        await eventually(lambda: receiver.named("settle payments"))

    assert line.trace_id == trace_of(tenant, payment)
    assert receiver.named("payment") == []
    assert len(receiver.named("send payments")) == 1


async def test_a_tenant_with_the_rate_zero_is_never_traced(api, tenant, default, monkeypatch, caplog):
    async with received(rate=0.0) as receiver:
        await slow_one(api, default, monkeypatch)
        [line] = await eventually(lambda: lines(caplog))

    assert not hasattr(line, "trace_id")
    assert receiver.spans == []


async def test_a_payment_whose_history_cannot_be_read_is_a_line_and_the_next_one_is_explained(
    api, default, monkeypatch, caplog
):
    real, failures = slow.history_of, [RuntimeError("no history")]

    async def history_of(*of: Any) -> Any:
        if failures:
            raise failures.pop()
        return await real(*of)

    monkeypatch.setattr(slow, "history_of", history_of)
    await slow_one(api, default, monkeypatch)
    await eventually(lambda: lines(caplog, "a slow or failed payment was not explained"))
    await slow_one(api, default, monkeypatch)

    await eventually(lambda: lines(caplog))


async def test_an_error_of_tracing_keeps_no_live_message_back(api, tenant, default, monkeypatch, caplog):
    def broken(*_: object) -> None:
        raise RuntimeError("no exporter")

    default.answers(400, times=1)
    told: list[live.Event] = []
    real = live.publish
    async with received(rate=UNSAMPLED):
        payment = await api.pay()
        monkeypatch.setattr(slow.sampling, "sampled", broken)
        monkeypatch.setattr(live, "publish", lambda events: (told.extend(events), real(events)))
        await settle_one(api, payment, "failed")

    assert [one.subject for one in told][-1] == payment["correlationId"]
    assert len(told) == 2
    assert any("spans were not recorded" in record.message for record in caplog.records)
