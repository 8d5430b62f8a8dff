"""The client's payments against the service: submit, read, wait, watch, cancel, refund, export."""

import asyncio
import csv
import io
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from payments.models import Attempt
from payments.states import REQUIRES_ACTION
from registry_client import (
    AuthenticationFailed,
    Conflict,
    NewPayment,
    NotFound,
    PaymentStatus,
    PermissionDenied,
    RefundStatus,
    ValidationFailed,
    WaitTimeout,
)
from tests.client import halves
from tests.conftest import Api, at_work, make_key
from tests.factories import in_thread, make_payment, make_processor
from tests.payments.refunding import paying_back


@pytest.fixture
async def sandbox(tenant):
    """A processor in the database alone, quick and well."""
    return await in_thread(make_processor, tenant, "default", options={"delay": 0})


# -- Submitting ------------------------------------------------------------------------------------------------------


async def test_a_submitted_payment_is_durable_and_has_an_id_and_addresses(client: Any, api: Api):
    payment = await client.payments.submit("19.90", description="Order 1001")

    stored = await api.detail(str(payment.correlation_id))
    assert (payment.status, payment.amount, payment.currency) == (PaymentStatus.QUEUED, Decimal("19.90"), "BRL")
    assert (stored["amount"], stored["description"]) == ("19.90", "Order 1001")
    assert payment.created_at.tzinfo and not payment.replayed
    assert all(url.startswith(api.address) for url in (payment.status_url, payment.live_url))


async def test_every_field_of_a_payment_is_sent(client: Any, sandbox):
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)

    payment = await client.payments.submit(
        Decimal("7.10"),
        currency="BRL",
        description="Order 7",
        metadata={"order": 7},
        processor="default",
        scheduled_for=later,
        priority=3,
    )

    found = await client.payments.get(payment.correlation_id)
    assert (found.amount, found.description, found.metadata) == (Decimal("7.10"), "Order 7", {"order": 7})
    assert (found.scheduled_for, found.priority) == (later, 3)


async def test_the_same_payment_twice_is_accepted_once_and_the_second_is_a_replay(client: Any):
    payment = NewPayment(amount=Decimal(5))

    first, second = [await client.payments.submit_payment(payment) for _ in range(2)]

    assert (first.replayed, second.replayed) == (False, True)
    assert first.correlation_id == second.correlation_id == payment.correlation_id


async def test_other_content_under_the_same_id_is_a_conflict_with_its_problem(client: Any):
    payment = await client.payments.submit(5)

    with pytest.raises(Conflict) as refused:
        await client.payments.submit(6, correlation_id=payment.correlation_id)

    assert refused.value.problem.type == "urn:registry:problem:different-content"
    assert refused.value.request_id


async def test_invalid_fields_are_named(client: Any):
    with pytest.raises(ValidationFailed) as refused:
        await client.payments.submit("1.234", description="x" * 501)

    assert {one.field for one in refused.value.errors} == {"amount", "description"}


@pytest.mark.parametrize("amount", [19.9, True, None])
async def test_an_amount_that_is_not_exact_is_refused_before_it_is_sent(client: Any, amount: Any):
    with pytest.raises(TypeError, match="an amount is a Decimal"):
        await client.payments.submit(amount)


@pytest.mark.parametrize("url", ["registry.example", "127.0.0.1:8000", "ftp://registry.example", "http://", ""])
def test_an_address_that_cannot_be_called_is_refused_at_once(half: str, url: str):
    with pytest.raises(ValueError, match="begins with http"):
        halves.make(half, url, "rk_x_y")


@pytest.mark.parametrize("key", ["", "rk_x_y\n", "rk_é"])
def test_a_key_that_cannot_be_sent_is_refused_at_once_and_not_shown(half: str, key: str):
    with pytest.raises(ValueError, match="printable ASCII") as refused:
        halves.make(half, "http://127.0.0.1:8000", key)

    assert key.strip() not in str(refused.value) or not key


async def test_a_time_without_a_zone_is_refused_before_it_is_sent(client: Any):
    with pytest.raises(ValueError, match="no time zone"):
        await client.payments.submit(1, scheduled_for=datetime(2030, 1, 1))
    with pytest.raises(ValueError, match="no time zone"):
        await client.payments.summary(to=datetime(2030, 1, 1))


async def test_a_batch_has_one_result_per_payment_in_order(client: Any):
    good, bad = NewPayment(amount=Decimal(1)), NewPayment(amount=Decimal(0))
    await client.payments.submit_payment(good)

    results = await client.payments.batch([good, bad, NewPayment(amount=Decimal(2))])

    assert [one.status for one in results] == ["replayed", "invalid", "queued"]
    assert [one.accepted for one in results] == [True, False, True]
    assert results[1].correlation_id == str(bad.correlation_id) and results[1].error["errors"]


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_batch_of_none_or_too_many_is_refused_before_it_is_sent(client: Any, count: int):
    with pytest.raises(ValueError, match="1 to 1000"):
        await client.payments.batch([NewPayment(amount=Decimal(1))] * count)


async def test_a_wrong_key_and_a_key_without_the_scope_have_errors_of_their_own(half: str, server: str, tenant):
    reader, nobody = halves.make(half, server, await make_key(tenant, "read")), halves.make(half, server, "rk_x_y")

    with pytest.raises(PermissionDenied):
        await reader.payments.submit(1)
    with pytest.raises(AuthenticationFailed):
        await nobody.payments.submit(1)

    await halves.end(reader), await halves.end(nobody)


# -- Reading ---------------------------------------------------------------------------------------------------------


async def test_an_unknown_payment_is_not_found(client: Any):
    for read in (client.payments.status, client.payments.get, client.payments.wait):
        with pytest.raises(NotFound):
            await read(uuid4())


async def test_a_list_is_iterated_over_its_pages_newest_first(client: Any):
    payments = [await client.payments.submit(number) for number in range(1, 6)]

    found = [one async for one in client.payments.list(page_size=2)]
    page = await client.payments.page(limit=2)

    assert [one.correlation_id for one in reversed(found)] == [one.correlation_id for one in payments]
    assert (len(page.items), page.total, page.next is None) == (2, 5, False)


async def test_a_list_is_filtered(client: Any):
    first = await client.payments.submit(1)
    second = await client.payments.submit(2)
    await client.payments.cancel(second.correlation_id)

    canceled = [one async for one in client.payments.list(status=PaymentStatus.CANCELED)]
    before = first.created_at - timedelta(seconds=1)
    early, late = [[one async for one in client.payments.list(**{end: before})] for end in ("to", "from_")]

    assert [one.correlation_id for one in canceled] == [second.correlation_id]
    assert (len(early), len(late)) == (0, 2)


async def test_exports_hold_every_payment(client: Any):
    payments = [await client.payments.submit(number, description=f"Order {number}") for number in range(1, 4)]

    exported = [one async for one in client.payments.export()]
    async with client.payments.export_csv(status=PaymentStatus.QUEUED) as chunks:
        table = b"".join([chunk async for chunk in chunks]).decode()

    assert [one.correlation_id for one in reversed(exported)] == [one.correlation_id for one in payments]
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [row["description"] for row in rows] == ["Order 3", "Order 2", "Order 1"]


async def test_the_summary_counts_what_was_booked_exactly(client: Any, sandbox, worker):
    before = datetime.now(UTC)
    for amount in ("0.10", "0.20"):
        await client.payments.wait((await client.payments.submit(amount)).correlation_id)

    summary = await client.payments.summary(from_=before - timedelta(seconds=1), to=datetime.now(UTC))
    later = await client.payments.summary(from_=datetime.now(UTC) + timedelta(days=1), currency="BRL")

    assert (summary["default"].total_requests, summary["default"].total_amount) == (2, Decimal("0.30"))
    assert later["default"].total_requests == 0


# -- Waiting and watching --------------------------------------------------------------------------------------------


async def test_waiting_returns_the_settled_payment(client: Any, sandbox, worker):
    payment = await client.payments.submit("19.90")

    settled = await client.payments.wait(payment.correlation_id)

    assert (settled.status, settled.processor, settled.attempts) == (PaymentStatus.SUCCEEDED, "default", 1)


async def test_waiting_ends_with_the_latest_state_when_the_time_is_over(client: Any):
    payment = await client.payments.submit("19.90")

    with pytest.raises(WaitTimeout) as late:
        await client.payments.wait(payment.correlation_id, timeout=0.2)

    assert late.value.last.status is PaymentStatus.QUEUED
    assert isinstance(late.value, TimeoutError)


async def test_waiting_for_what_has_ended_returns_at_once(client: Any):
    payment = await client.payments.submit("19.90")
    await client.payments.cancel(payment.correlation_id)

    assert (await client.payments.wait(payment.correlation_id)).status is PaymentStatus.CANCELED


async def test_watching_a_payment_shows_every_change_until_the_outcome(client: Any, sandbox):
    payment = await client.payments.submit("19.90")
    seen = []

    async with asyncio.timeout(30):
        async for state in client.payments.watch(payment.correlation_id):
            seen.append(state)
            if len(seen) == 1:
                working = at_work()
                await working.__aenter__()
    await working.__aexit__(None, None, None)

    assert [one.status for one in seen] == ["queued", "processing", "succeeded"]
    assert [one.sequence for one in seen] == [1, 2, 3]


async def test_watching_from_a_number_shows_what_came_after(client: Any, sandbox, worker):
    payment = await client.payments.submit("19.90")
    await client.payments.wait(payment.correlation_id)

    after_first = [one.status async for one in client.payments.watch(payment.correlation_id, after=1)]
    after_all = [one.status async for one in client.payments.watch(payment.correlation_id, after=3)]

    assert (after_first, after_all) == (["processing", "succeeded"], [])


async def test_watching_what_is_not_there_or_not_allowed_raises_the_services_answer(half: str, client: Any, server):
    nobody = halves.make(half, server, "rk_x_y")

    with pytest.raises(NotFound):
        await first_of(client.payments.watch(uuid4()))
    with pytest.raises(AuthenticationFailed):
        await first_of(nobody.payments.watch_all())

    await halves.end(nobody)


async def first_of(changes: Any) -> Any:
    async with asyncio.timeout(30), aclosing(aiter(changes)) as iterator:
        return await anext(iterator)


async def test_watching_all_shows_every_payment_in_order(client: Any):
    numbers = []
    for amount in (1, 2, 3):
        await client.payments.submit(amount)

    async with asyncio.timeout(30), aclosing(aiter(client.payments.watch_all(after=0))) as changes:
        async for change in changes:
            numbers.append((change.sequence, change.payment.amount))
            if len(numbers) == 3:
                break

    assert numbers == [(1, 1), (2, 2), (3, 3)]


# -- Cancel, capture, refund -----------------------------------------------------------------------------------------


async def test_a_queued_payment_is_canceled_once_and_again(client: Any):
    payment = await client.payments.submit(1)

    states = [(await client.payments.cancel(payment.correlation_id)).status for _ in range(2)]

    assert states == ["canceled", "canceled"]


async def test_what_cannot_be_canceled_captured_or_refunded_is_a_conflict(client: Any, sandbox, worker):
    payment = await client.payments.submit(1)
    await client.payments.wait(payment.correlation_id)
    await client.payments.refunds.create(payment.correlation_id)

    for change in (client.payments.cancel, client.payments.capture, client.payments.refunds.create):
        with pytest.raises(Conflict):
            await change(payment.correlation_id)


async def test_a_refund_is_waited_for(client: Any, sandbox, worker):
    payment = await client.payments.submit("10.00")
    await client.payments.wait(payment.correlation_id)
    refund = await client.payments.refunds.create(payment.correlation_id, 4)
    with pytest.raises(WaitTimeout):
        await client.payments.refunds.wait(payment.correlation_id, refund.id, timeout=0.1)

    async with paying_back():
        returned = await client.payments.refunds.wait(payment.correlation_id, refund.id)

    assert (returned.status, returned.amount) == (RefundStatus.RETURNED, Decimal("4.00"))
    assert (await client.payments.get(payment.correlation_id)).refunded == Decimal("4.00")


async def test_an_authorized_payment_is_captured(client: Any, tenant, sandbox):
    made = await in_thread(make_payment, tenant, status=REQUIRES_ACTION, processor=sandbox)
    await in_thread(lambda: Attempt.objects.filter(payment_id=made.pk).update(action={"type": "capture"}))

    states = [(await client.payments.capture(made.correlation_id)).status for _ in range(2)]

    assert states == ["processing", "processing"]


async def test_a_refund_is_requested_once_per_key_and_can_be_read(client: Any, sandbox, worker):
    payment = await client.payments.submit("10.00")
    await client.payments.wait(payment.correlation_id)
    key = uuid4()

    first, second = [
        await client.payments.refunds.create(payment.correlation_id, "4.00", reason="broken", idempotency_key=key)
        for _ in range(2)
    ]
    rest = await client.payments.refunds.create(payment.correlation_id)

    assert (first.id, first.amount, first.reason) == (second.id, Decimal("4.00"), "broken")
    assert (rest.amount, rest.status) == (Decimal("6.00"), RefundStatus.OWED)
    assert [one.id for one in await client.payments.refunds.list(payment.correlation_id)] == [first.id, rest.id]
    assert (await client.payments.refunds.get(payment.correlation_id, rest.id)).amount == Decimal("6.00")
