"""The test double of the client: the same scenarios against it and against the service, and what a test decides about it."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from registry_client import (
    NO_RETRY,
    AuthenticationFailed,
    ConnectionFailed,
    NewJob,
    NewMessage,
    NewPayment,
    NotFound,
    PaymentStatus,
    RegistryError,
    ResponseError,
    ServiceUnavailable,
    ValidationFailed,
    WaitTimeout,
    ack_of,
)
from registry_client.models.queue import Message
from registry_client.testing import FakeRegistry, JobFailed
from tests.client import halves
from tests.client.working import jobs_at_work
from tests.conftest import Api, at_work
from tests.factories import in_thread, make_processor
from tests.payments.refunding import paying_back
from tests.queueing.kinds_app import jobs as _kinds  # noqa: F401 - registers the kinds test.…
from tests.queueing.mq import Mq

type Seen = list[Any]


def make(fake: FakeRegistry, half: str, **options: Any) -> Any:
    """A client of the double."""
    return fake.async_client(**options) if half == "async" else halves.InThreads(fake.client(**options))


@pytest.fixture
def fake() -> FakeRegistry:
    return FakeRegistry()


# -- The same scenario against both ----------------------------------------------------------------------------------


async def tried(call: Awaitable[Any]) -> Any:
    """The result, or what a program sees of the error."""
    try:
        return await call
    except ResponseError as error:
        return type(error).__name__, error.problem.type, [one.field for one in error.errors]
    except (RegistryError, ValueError) as error:
        return type(error).__name__


async def a_payment_and_its_story(client: Any) -> Seen:
    payment = NewPayment(amount=Decimal("19.90"), description="Order 1", metadata={"order": 1})
    accepted = await client.payments.submit_payment(payment)
    settled = await client.payments.wait(accepted.correlation_id)
    details = await client.payments.get(accepted.correlation_id)
    again = await client.payments.submit_payment(payment)
    states = [state async for state in client.payments.watch(accepted.correlation_id, after=0)]
    return [
        accepted, settled, details.metadata, details.refunded, len(details.attempts), details.attempts[0].outcome,
        [(entry.sequence, entry.status) for entry in details.timeline], again.replayed, states[-1],
        [state.sequence for state in states],
    ]  # fmt: skip


async def requests_that_are_refused(client: Any) -> Seen:
    payment = await client.payments.submit(5)
    await client.payments.wait(payment.correlation_id)
    payments = client.payments
    return [
        await tried(call)
        for call in (
            payments.submit(6, correlation_id=payment.correlation_id),
            payments.submit("1.234"),
            payments.submit(0),
            payments.submit(1, description="x" * 501),
            payments.status(uuid4()),
            payments.get(uuid4()),
            payments.wait(uuid4()),
            payments.cancel(payment.correlation_id),
            payments.cancel(uuid4()),
            payments.capture(payment.correlation_id),
            payments.refunds.create(uuid4()),
            payments.refunds.create(payment.correlation_id, "5.01"),
            payments.refunds.create(payment.correlation_id, "0.001"),
            payments.refunds.get(payment.correlation_id, uuid4()),
            payments.refunds.list(uuid4()),
        )
    ]


async def a_batch(client: Any) -> Seen:
    one, other = NewPayment(amount=Decimal(1)), NewPayment(amount=Decimal(2))
    await client.payments.submit_payment(one)
    changed = NewPayment(amount=Decimal(9), correlation_id=one.correlation_id)
    results = await client.payments.batch([one, other, changed, NewPayment(amount=Decimal(0))])
    return [(result.status, result.accepted, sorted(result.error or {})) for result in results]


async def lists_and_sums(client: Any) -> Seen:
    later = datetime.now(UTC) + timedelta(days=1)
    for amount in ("0.10", "0.20", "0.30"):
        await client.payments.wait((await client.payments.submit(amount)).correlation_id)
    waiting = await client.payments.submit(1, scheduled_for=later)
    page = await client.payments.page(limit=3)
    summary = await client.payments.summary(to=later)
    return [
        [one.amount async for one in client.payments.list(page_size=2)],
        [one.amount async for one in client.payments.list(status=PaymentStatus.SUCCEEDED)],
        [one.correlation_id == waiting.correlation_id async for one in client.payments.list(status=PaymentStatus.QUEUED)],
        [one.amount async for one in client.payments.export(processor="default")],
        [one async for one in client.payments.list(from_=later)],
        (len(page.items), page.total, page.next is None),
        (summary["default"].total_requests, summary["default"].total_amount),
    ]  # fmt: skip


async def a_cancellation(client: Any) -> Seen:
    payment = await client.payments.submit(1, scheduled_for=datetime.now(UTC) + timedelta(days=1))
    states = [await client.payments.cancel(payment.correlation_id) for _ in range(2)]
    return [*states, await client.payments.wait(payment.correlation_id)]


async def refunds(client: Any) -> Seen:
    payment = await client.payments.submit("10.00")
    await client.payments.wait(payment.correlation_id)
    key, at = uuid4(), payment.correlation_id
    first = await client.payments.refunds.create(at, "4.00", reason="broken", idempotency_key=key)
    again = await client.payments.refunds.create(at, "4.00", reason="broken", idempotency_key=key)
    other = await tried(client.payments.refunds.create(at, "5.00", idempotency_key=key))
    rest = await client.payments.refunds.create(at)
    none = await tried(client.payments.refunds.create(at))
    listed = await client.payments.refunds.list(at)
    ended = [await client.payments.refunds.wait(at, one.id) for one in (first, rest)]
    details = await client.payments.get(at)
    return [
        *ended,
        details.refunded,
        details.sequence,
        sorted(entry.kind or "" for entry in details.timeline),
        (first.amount, first.reason, first.currency),
        first.id == again.id,
        other,
        rest.amount,
        none,
        len(listed),
    ]


async def messages(client: Any) -> Seen:
    queue = client.queue
    message = NewMessage(queue="orders", payload={"id": 1}, partition="customer-7")
    pushed = await queue.push_many([message, message, NewMessage(queue="orders", payload=[2], partition="customer-7")])
    popped = await queue.pop("orders", batch=10)
    nothing = await queue.pop("orders")
    first = await queue.ack(popped[0])
    failed = await queue.ack(popped[1], "failed", error="no")
    late = await queue.ack(popped[1])
    return [
        [one.status for one in pushed], [one.data for one in popped], {one.partition for one in popped}, nothing,
        (first.success, first.lease_released), (failed.success, failed.lease_released, failed.dlq),
        (late.success, late.error),
    ]  # fmt: skip


async def groups_and_partitions(client: Any) -> Seen:
    queue = client.queue
    for partition in ("a", "b"):
        await queue.push_many(
            [NewMessage(queue="news", payload=f"{partition}{n}", partition=partition) for n in (1, 2)]
        )
    await queue.pop("news", group="late", start="new", partition="a")
    await queue.push("news", "a3", partition="a")
    one = await queue.pop("news", group="early", batch=10, start="all")
    other = await queue.pop("news", group="early", batch=10)
    late = await queue.pop("news", group="late", partition="a", batch=10, auto_ack=True)
    at_once = await queue.pop("news", group="early", batch=10)
    return [sorted(found.data for found in one + other), [found.data for found in late], at_once, late[0].lease_id]


async def retries_and_dead_letters(client: Any) -> Seen:
    queue, seen = client.queue, []
    await queue.push_many([NewMessage(queue="orders", payload=payload) for payload in ("bad", "good")])
    for _ in range(4):
        [message] = await queue.pop("orders", wait=5)
        acked = await queue.ack(message, "failed")
        seen.append((message.data, acked.success, acked.dlq))
    [message] = await queue.pop("orders", wait=5)
    back = await queue.ack(message, "retry")
    [message] = await queue.pop("orders", wait=5)
    dead = await queue.ack(message, "dlq")
    return [*seen, (message.data, back.success, back.dlq), (dead.success, dead.dlq), await queue.pop("orders")]


async def transactions_and_leases(client: Any) -> Seen:
    queue = client.queue
    await queue.push("orders", 1)
    [message] = await queue.pop("orders")
    extended = await queue.extend(message.lease_id, 600)
    unknown = await queue.extend(str(uuid4()), 600)
    bill = NewMessage(queue="bills", payload="a")
    done = await queue.transaction([bill, ack_of(message)])
    refused = [await tried(queue.transaction([one])) for one in (bill, ack_of(message))]
    return [
        extended.success, (unknown.success, unknown.error), done.success, [one["type"] for one in done.results], refused,
        [one.data for one in await queue.pop("bills", batch=10)], await queue.pop("orders"),
    ]  # fmt: skip


async def jobs_and_their_results(client: Any) -> Seen:
    jobs, key, later = client.jobs, uuid4(), datetime.now(UTC) + timedelta(days=1)
    accepted = await jobs.submit("test.echo", {"text": "hello"}, idempotency_key=key)
    done = await jobs.wait(accepted.id)
    details = await jobs.get(accepted.id)
    again = await jobs.submit("test.echo", {"text": "hello"}, idempotency_key=key)
    one = await jobs.submit("test.echo", {}, unique_key="nightly", run_at=later)
    other = await jobs.submit("test.echo", {}, unique_key="nightly", run_at=later)
    states = [state.status async for state in jobs.progress(accepted.id)]
    return [
        accepted, done, details.input["text"], details.max_attempts, details.timeout, details.result_ttl,
        [(entry.sequence, entry.status) for entry in details.timeline], again.replayed, again.id == accepted.id, states,
        await jobs.result(accepted.id), (one.at_work, other.at_work, one.id == other.id),
        [job.id == one.id async for job in jobs.list(page_size=1)], (await jobs.page(status="queued")).total,
        [(await jobs.cancel(one.id)).status for _ in range(2)],
    ]  # fmt: skip


async def jobs_that_fail(client: Any) -> Seen:
    jobs, key = client.jobs, uuid4()
    failing = await jobs.submit("test.fail", {"text": "for good"}, idempotency_key=key)
    failed = await jobs.wait(failing.id)
    batch = await jobs.batch([NewJob(kind="test.echo"), NewJob(kind="no.such"), NewJob(kind="test.echo", input={})])
    done = batch[0].id
    await jobs.wait(done)
    return [
        failed.status, failed.error, [(one.status, one.accepted) for one in batch],
        *[
            await tried(call)
            for call in (
                jobs.submit("no.such", {}), jobs.submit("test.fail", {"text": "other"}, idempotency_key=key),
                jobs.status(uuid4()), jobs.result(failing.id), jobs.cancel(failing.id), jobs.retry(done),
                jobs.wait_result(failing.id), jobs.retry(uuid4()), jobs.cancel(uuid4()),
            )
        ],
        (await jobs.retry(failing.id)).status, (await jobs.wait(failing.id)).attempts,
    ]  # fmt: skip


async def schedules(client: Any) -> Seen:
    fields: dict[str, Any] = {
        "cron": "0 3 * * *",
        "kind": "test.echo",
        "input": {"text": "a"},
        "timezone": "Europe/Rome",
    }
    made = await client.schedules.put("nightly", **fields, overlap="queue", max_attempts=2)
    paused = await client.schedules.pause("nightly")
    again = await client.schedules.put("nightly", **fields)
    resumed = await client.schedules.resume("nightly")
    key = uuid4()
    one, other = [await client.schedules.run("nightly", idempotency_key=key) for _ in range(2)]
    result = await client.jobs.wait_result(one.id)
    found = await client.schedules.get("nightly")
    listed = [schedule.name async for schedule in client.schedules.list(page_size=1)]
    seen = [
        [one_of(schedule) for schedule in (made, paused, again, resumed, found)], found.last_job.status, listed,
        (one.kind, one.status, one.id == other.id), result, await client.schedules.delete("nightly"),
    ]  # fmt: skip
    calls = (
        client.schedules.get("nightly"), client.schedules.run("nightly"), client.schedules.pause("nightly"),
        client.schedules.delete("nightly"), client.schedules.put("nightly", **fields | {"cron": "never"}),
        client.schedules.put("nightly", **fields | {"kind": "no.such"}), client.schedules.put("-", **fields),
        *[client.schedules.put("nightly", **fields | wrong) for wrong in WRONG_SCHEDULES],
    )  # fmt: skip
    return seen + [await tried(call) for call in calls]


WRONG_SCHEDULES: list[dict[str, Any]] = [
    {"timezone": "Berlin"}, {"timezone": "localtime"}, {"timezone": "../UTC"}, {"timezone": "Europe"}, {"timezone": 1},
    {"overlap": "zz"}, {"catch_up": "some"}, {"overlap": "zz", "catch_up": "some"}, {"timezone": "Berlin", "cron": "never"},
    {"overlap": "zz", "kind": "no.such"}, {"timezone": "Berlin", "kind": "no.such"},
]  # fmt: skip


def one_of(schedule: Any) -> tuple[Any, ...]:
    names = ("name", "cron", "timezone", "overlap", "catch_up", "kind", "paused", "priority", "max_attempts", "timeout")
    return (*(getattr(schedule, name) for name in (*names, "result_ttl", "callback_url")), schedule.input["text"])


SCENARIOS = [
    a_payment_and_its_story, requests_that_are_refused, a_batch, lists_and_sums, a_cancellation, refunds, messages,
    groups_and_partitions, retries_and_dead_letters, transactions_and_leases,
    jobs_and_their_results, jobs_that_fail, schedules,
]  # fmt: skip

_VARIABLE = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|reference=[^,]*|http://[^'\"]*|datetime\.datetime\([^)]*\)")


def seen_of(seen: Seen) -> list[str]:
    """What a scenario saw, without ids, times and addresses, which differ from run to run."""
    return [_VARIABLE.sub("…", repr(one)) for one in seen]


def with_kinds(fake: FakeRegistry) -> FakeRegistry:
    """The double with the kinds that the service has in tests."""

    def fail(input: dict[str, Any]) -> None:
        raise JobFailed("the card is stolen", code="stolen")

    fake.jobs.kind("test.echo", lambda input: {"text": input.get("text", "")})
    fake.jobs.kind("test.fail", fail)
    return fake


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_the_double_answers_as_the_service(
    scenario: Callable[[Any], Awaitable[Seen]], half: str, client: Any, api: Api, tenant
):
    await in_thread(make_processor, tenant, "default", options={"delay": 0})
    for queue in ("orders", "news", "bills"):
        await Mq(api, tenant.pk).configure(queue, retry_delay_ms=0)
    double = make(with_kinds(FakeRegistry()), half)

    async with at_work(), jobs_at_work(), paying_back():
        real = await scenario(client)
    faked = await scenario(double)

    assert seen_of(faked) == seen_of(real)
    await halves.end(double)


# -- What a test decides ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["failed", "requires_action", "succeeded"])
async def test_payments_end_as_the_test_says(half: str, fake: FakeRegistry, status: str):
    client = make(fake, half)
    fake.payments.settles_as(status)

    payment = await client.payments.submit("19.90")

    assert (await client.payments.wait(payment.correlation_id)).status == status
    assert [one.status for one in fake.payments.all] == [status]


async def test_held_payments_are_settled_by_the_test_while_the_application_waits(half: str, fake: FakeRegistry):
    client = make(fake, half)
    fake.payments.holds()
    payment = await client.payments.submit("19.90")
    with pytest.raises(WaitTimeout):
        await client.payments.wait(payment.correlation_id, timeout=0.05)

    waiting = asyncio.ensure_future(client.payments.wait(payment.correlation_id))
    watching = asyncio.ensure_future(states_of(client, payment.correlation_id))
    await asyncio.sleep(0)
    fake.payments.settle(payment.correlation_id, "failed", processor="fallback")

    assert ((await waiting).status, (await waiting).processor) == ("failed", "fallback")
    assert (await watching)[-1] == "failed"
    with pytest.raises(ValueError, match="failed"):
        fake.payments.settle(payment.correlation_id)


async def states_of(client: Any, correlation_id: UUID) -> list[str]:
    return [state.status async for state in client.payments.watch(correlation_id)]


async def test_an_authorized_payment_is_captured_or_canceled(half: str, fake: FakeRegistry):
    client = make(fake, half)
    fake.payments.settles_as("requires_action")
    one, other = [await client.payments.submit(amount) for amount in (1, 2)]

    captured = await client.payments.capture(one.correlation_id)
    await client.payments.cancel(other.correlation_id)

    assert captured.status == "processing"
    assert [payment.status for payment in fake.payments.all] == ["succeeded", "canceled"]


async def test_faults_strike_the_next_requests_and_the_client_tries_again(half: str, fake: FakeRegistry):
    client = make(fake, half)
    fake.fails(503, times=2)
    fake.disconnects(executed=True)
    fake.disconnects(executed=False)

    payment = await client.payments.submit("19.90")

    assert payment.replayed and len(fake.payments.all) == 1
    assert fake.requests == [("POST", "/payments")] * 5


async def test_faults_reach_an_application_whose_client_does_not_try_again(half: str, fake: FakeRegistry):
    client = make(fake, half, retry=NO_RETRY)
    fake.fails(503, retry_after=7)
    fake.disconnects()

    with pytest.raises(ServiceUnavailable) as refused:
        await client.payments.submit("19.90")
    with pytest.raises(ConnectionFailed):
        await client.payments.submit("19.90")

    assert refused.value.retry_after == 7


async def test_another_key_is_refused(half: str, fake: FakeRegistry):
    client = make(fake, half, key="rk_other")

    with pytest.raises(AuthenticationFailed):
        await client.payments.submit("19.90")


async def test_all_payments_are_watched(half: str, fake: FakeRegistry):
    client = make(fake, half)
    for amount in (1, 2):
        await client.payments.submit(amount)

    seen = []
    async with asyncio.timeout(20):
        async for change in client.payments.watch_all(after=1):
            seen.append((change.sequence, change.payment.status))
            if len(seen) == 3:
                await client.payments.submit(3)
            if change.sequence == 9:
                break

    assert seen == list(enumerate(["processing", "succeeded", *["queued", "processing", "succeeded"] * 2], 2))


async def test_a_consumer_works_with_the_double(half: str, fake: FakeRegistry):
    client = make(fake, half)
    await client.queue.push_many([NewMessage(queue="orders", payload=payload) for payload in ("good", "bad", "last")])
    handled = asyncio.Event()

    async def handle(message: Message) -> None:
        if message.data == "bad":
            raise RuntimeError("the shop is closed")
        if message.data == "last":
            handled.set()

    consumer = client.queue.consumer("orders", handle, wait=0.1)
    running = asyncio.ensure_future(_run(consumer))
    async with asyncio.timeout(20):
        await handled.wait()
    consumer.stop()
    await running

    assert fake.queue.payloads("orders") == ["good", "bad", "last"]
    assert (fake.queue.dead_letters("orders"), fake.queue.waiting("orders")) == (["bad"], [])


async def _run(consumer: Any) -> None:
    await consumer.run()


async def test_leases_of_the_double_expire_when_the_test_says(half: str, fake: FakeRegistry):
    client = make(fake, half)
    await client.queue.push("orders", 1)
    [message] = await client.queue.pop("orders")
    fake.queue.expire_leases()

    late = await client.queue.ack(message)
    again = await client.queue.pop("orders")

    assert (late.success, [one.data for one in again]) == (False, [1])


async def test_held_jobs_report_and_run_when_the_test_says(half: str, fake: FakeRegistry):
    client = make(fake, half)
    fake.jobs.kind("report", lambda input: {"rows": input["month"]})
    fake.jobs.holds()
    job = await client.jobs.submit("report", {"month": 11})

    progress = asyncio.ensure_future(progress_of(client, job.id))
    await asyncio.sleep(0)
    fake.jobs.reports(job.id, 1, 2, "half way")
    fake.jobs.run(job.id)

    assert await client.jobs.wait_result(job.id) == {"rows": 11}
    assert await progress == [("queued", None), ("running", None), ("running", 1), ("succeeded", 1)]
    assert [one.status for one in fake.jobs.all] == ["succeeded"]
    with pytest.raises(ValueError, match="succeeded"):
        fake.jobs.run(job.id)


async def progress_of(client: Any, job_id: UUID) -> list[tuple[str, int | None]]:
    found = [job async for job in client.jobs.progress(job_id)]
    return [(job.status, job.progress and job.progress.done) for job in found]


async def test_schedules_of_the_double_run_when_they_are_told_to(half: str, fake: FakeRegistry):
    client = make(fake, half)
    fake.jobs.kind("report")

    made = await client.schedules.put("nightly", cron="0 3 * * *", kind="report", input={}, timezone="Europe/Rome")
    paused = await client.schedules.pause("nightly")
    resumed = await client.schedules.resume("nightly")
    job = await client.schedules.run("nightly")
    listed = [one async for one in client.schedules.list()]
    await client.schedules.delete("nightly")

    assert (made.timezone, made.overlap, made.catch_up) == ("Europe/Rome", "skip", "one")
    assert (paused.paused, resumed.paused, [one.name for one in listed]) == (True, False, ["nightly"])
    assert (await client.jobs.status(job.id)).status == "succeeded"
    for call in (client.schedules.get, client.schedules.run, client.schedules.delete):
        with pytest.raises(NotFound):
            await call("nightly")
    with pytest.raises(ValidationFailed):
        await client.schedules.put("nightly", cron="never", kind="report", input={})


async def test_an_unknown_field_is_refused_as_by_the_service(half: str, fake: FakeRegistry):
    client = make(fake, half)

    with pytest.raises(ValidationFailed) as refused:
        await client.payments.submit(1, description="x" * 501)

    assert [one.field for one in refused.value.errors] == ["description"]
