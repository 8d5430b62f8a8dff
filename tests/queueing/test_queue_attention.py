"""What needs attention of queues, workers, chores, jobs, messages, webhooks and the spill."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from payments.models import Payment
from payments.states import QUEUED
from queueing import spill
from queueing.models import (
    ChoreRun,
    DeadMessage,
    Group,
    Job,
    Partition,
    Queue,
    WebhookDelivery,
    WebhookEndpoint,
    Worker,
)
from queueing.work import chore_runs
from queueing.work.table import TABLES
from registry.data.chores import CHORES, Chore
from registry.errors import Unavailable
from registry.operators.attention import Severity
from registry.telemetry import metrics
from tests.attending import named
from tests.conftest import eventually
from tests.factories import in_thread, make_payment, make_tenant


@pytest.fixture
def acme():
    return make_tenant("acme")


def ago(**length: float) -> datetime:
    return timezone.now() - timedelta(**length)


# -- Queues ------------------------------------------------------------------------------------------------------


async def test_everything_that_waits_is_counted_and_aged_from_its_acceptance_due_or_not(acme):
    """After an outage nearly all rows wait for their next attempt: they are not due, and not gone."""

    def payments() -> None:
        for _ in range(5):
            make_payment(acme, created_at=ago(minutes=11), run_at=timezone.now() + timedelta(minutes=1))
        make_payment(acme, created_at=ago(minutes=12))
        tomorrow = timezone.now() + timedelta(days=1)
        make_payment(acme, created_at=ago(days=1), scheduled_for=tomorrow, run_at=tomorrow)

    await in_thread(payments)

    [item], [mine] = await named("queues"), await named("queues", [acme.pk])

    assert item.sentence.startswith("The queue payments: 6 wait, 1 of them due now; the oldest was accepted 12 min ago")
    assert (item.count, item.severity) == (6, Severity.WARNING)
    assert mine.count == 6
    assert await named("queues", [(await in_thread(make_tenant)).pk]) == []


@pytest.mark.parametrize(("minutes", "severity"), [(2, Severity.WARNING), (6, Severity.CRITICAL)])
async def test_rows_that_are_due_and_not_taken_say_that_workers_do_not_keep_up(acme, minutes, severity):
    await in_thread(make_payment, acme, run_at=ago(minutes=minutes))

    [item] = await named("queues")

    assert item.severity is severity
    assert f"the longest due for {minutes} min: workers do not keep up" in item.sentence


async def test_queues_that_are_served_are_shown_with_what_waits_in_them(acme):
    await in_thread(make_payment, acme)

    [item] = await named("queues")

    assert item.severity is Severity.WELL
    assert "payments 1 (oldest" in item.sentence


async def test_a_payment_that_workers_gave_up_is_a_dead_letter_and_waits_in_no_queue(acme):
    payment = await in_thread(make_payment, acme, status=QUEUED, created_at=ago(days=2))
    await in_thread(Payment.objects.filter(pk=payment.pk).update, run_at=datetime.fromisoformat("9999-12-31T00:00Z"))

    assert [item.severity for item in await named("queues")] == [Severity.WELL]


# -- Workers -----------------------------------------------------------------------------------------------------


def work(*queues: str, host: str = "host-1", **fields: Any) -> None:
    for queue in queues:
        Worker.objects.create(queue=queue, hostname=host, pid=1, capacity=800, **fields)


async def test_a_queue_without_a_worker_is_critical():
    await in_thread(work, *(name for name in TABLES if name != "payments"))

    [item] = await named("workers")

    assert item.sentence == "No worker is alive for payments: what was accepted waits."
    assert item.severity is Severity.CRITICAL


async def test_a_silent_host_is_named_and_a_silent_worker_beside_living_ones_is_a_warning():
    await in_thread(work, *TABLES)
    [well] = await named("workers")
    assert well.sentence == f"{len(TABLES)} workers on 1 host: 0 of {800 * len(TABLES)} rows in progress.".replace(
        "4000", "4,000"
    )
    await in_thread(work, "payments", "jobs", host="host-2", heartbeat_at=ago(minutes=3))
    await in_thread(work, "payments", heartbeat_at=ago(minutes=2))

    items = {item.sentence: item.severity for item in await named("workers")}

    assert items == {
        "The host host-2 is silent, with 2 workers. Others take over what was leased there.": Severity.CRITICAL,
        "On the host host-1 1 worker is silent. Others take over what was leased there.": Severity.WARNING,
    }


# -- Chores ------------------------------------------------------------------------------------------------------


@pytest.fixture
def chore(monkeypatch):
    """A chore of the test's own, which runs what the test puts into the list."""
    outcomes: list[Any] = []

    async def run() -> Any:
        outcome = outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setitem(CHORES, "test-chore", Chore(60, run))
    return outcomes


async def test_runs_of_chores_are_recorded_with_their_errors(chore):
    chore += [None, ValueError("no such table"), ValueError("no such table"), None]

    await chore_runs.recorded("test-chore")
    first = await in_thread(ChoreRun.objects.get, name="test-chore")
    assert (first.error, first.failing_since, first.succeeded_at) == ("", None, first.finished_at)

    for _ in range(2):
        with pytest.raises(ValueError, match="no such table"):
            await chore_runs.recorded("test-chore")
    failed = await in_thread(ChoreRun.objects.get, name="test-chore")
    assert failed.error == "ValueError('no such table')"
    assert failed.succeeded_at == first.succeeded_at < failed.failing_since < failed.finished_at
    [item] = await named("chores")
    assert item.sentence.startswith("The chore test-chore fails: ValueError('no such table'). It succeeded last ")

    await chore_runs.recorded("test-chore")
    assert (await in_thread(ChoreRun.objects.get, name="test-chore")).failing_since is None


async def test_a_chore_that_does_not_run_any_more_or_never_ran_is_overdue():
    late = {name: ago(days=3) for name in ("prove-ledger", "trim-jobs")}
    names = [name for name in CHORES if name not in ("prove-audit", "retire-inbound")]
    for name in names:
        started = late.get(name, timezone.now())
        await in_thread(ChoreRun.objects.create, name=name, started_at=started, created_at=ago(days=4))

    said = [item.sentence for item in await named("chores")]

    assert sorted(said) == [
        "The chore prove-ledger is overdue: it runs every 30 min.",
        "The chore retire-inbound is overdue: it runs every 1 h.",
        "The chore trim-jobs is overdue: it runs every 10 min.",
    ]


async def test_chores_that_run_are_well_also_where_none_was_ever_recorded():
    assert [item.severity for item in await named("chores")] == [Severity.WELL]


async def test_a_broken_audit_log_is_critical_and_a_whole_one_is_shown_with_its_time(monkeypatch):
    [never] = await named("audit.proof")
    assert not never.known

    await chore_runs.recorded("prove-audit")
    [whole] = await named("audit.proof")
    assert (whole.severity, whole.since is not None) == (Severity.WELL, True)

    async def finds() -> str:
        return "chain 7, position 3: the entry is gone"

    monkeypatch.setitem(CHORES, "prove-audit", Chore(3600, finds))
    await chore_runs.recorded("prove-audit")
    [broken] = await named("audit.proof")
    assert broken.sentence == "The audit log was changed: chain 7, position 3: the entry is gone."
    assert broken.severity is Severity.CRITICAL


# -- Jobs, messages, webhooks ------------------------------------------------------------------------------------------


async def test_failed_jobs_dead_messages_failed_deliveries_and_disabled_endpoints_wait_for_somebody(acme):
    def rows() -> None:
        given = {"input": "{}", "fingerprint": bytes(16), "max_attempts": 5, "timeout": 60, "result_ttl": 60}
        for status in ("failed", "failed", "succeeded"):
            Job.objects.create(tenant=acme, uuid=uuid4(), kind="http", status=status, finished_at=ago(hours=1), **given)
        queue = Queue.objects.create(tenant=acme, name="orders")
        partition = Partition.objects.create(tenant=acme, queue=queue, name="Default")
        group = Group.objects.create(tenant=acme, queue=queue, name="printers")
        for seq, ended in ((1, None), (2, timezone.now())):
            DeadMessage.objects.create(
                tenant=acme, queue=queue, partition=partition, group=group, group_name="printers", partition_name="Default",
                seq=seq, message_id=uuid4(), transaction_id=str(seq), payload=b"", error="no paper", attempts=4,
                created_at=timezone.now(), ended_at=ended,
            )  # fmt: skip
        hook = WebhookEndpoint.objects.create(
            tenant=acme, uuid=uuid4(), url="https://erp.example/hook", enabled=False, disabled_reason="it failed for 5 days", secrets=b""
        )  # fmt: skip
        WebhookEndpoint.objects.create(tenant=acme, uuid=uuid4(), url="https://b.example", enabled=False, secrets=b"")
        for status in ("dead", "delivered"):
            WebhookDelivery.objects.create(
                tenant=acme, endpoint_id=hook.pk, message_id=status, type="payment.failed", body="{}", status=status
            )

    await in_thread(rows)

    names = ("jobs.failed", "messages.dead", "deliveries.failed", "endpoints.disabled")
    found = {name: (await named(name, [acme.pk]))[0] for name in names}

    assert found["jobs.failed"].sentence == "2 jobs failed in every attempt. That work is not done."
    assert found["messages.dead"].sentence == "1 message of 1 queue could not be processed by a consumer group."
    assert found["deliveries.failed"].sentence.startswith("1 webhook delivery to 1 endpoint failed in every attempt")
    assert found["endpoints.disabled"].sentence.startswith(
        "1 webhook endpoint (erp.example) is disabled: its events wait"
    )
    assert all(item.since for item in found.values())
    lists = {name: item.admin for name, item in found.items() if name != "endpoints.disabled"}
    assert all("tenant=acme" in address for address in lists.values()), "else the list shows the first tenant"


# -- The spill ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("minutes", "more", "shown"),
    [
        (16, {}, True),
        (5, {}, False),
        (None, {}, False),
        (16, {"enabled": False}, False),
        (16, {"deleted_at": timezone.now()}, False),
        (16, {"callback": True}, False),
    ],
)
async def test_an_endpoint_that_accepts_nothing_is_shown_before_its_deliveries_have_failed_for_good(
    acme, minutes, more, shown
):
    since = timezone.now() - timedelta(minutes=minutes) if minutes else None
    fields = {"uuid": uuid4(), "url": "https://shop.example/hook", "secrets": b"", "failing_since": since}
    await in_thread(lambda: WebhookEndpoint.objects.create(tenant=acme, **fields, **more))

    found = await named("endpoints.failing")

    assert [(item.sentence, item.since) for item in found] == (
        [("1 webhook endpoint (shop.example) accepts nothing: deliveries are tried again for three days.", since)]
        if shown
        else []
    )
    assert await named("endpoints.failing", [acme.pk]) == found
    assert await named("endpoints.failing", [acme.pk + 1]) == []


async def test_records_of_the_spill_that_wait_and_those_set_aside_are_shown(settings, tmp_path, monkeypatch):
    settings.SPILL_FOLDER = tmp_path
    metrics.SPILL_RECORDS.clear()  # of the tests before
    [empty] = await named("spill.waiting")
    assert empty.severity is Severity.WELL
    back = asyncio.Event()

    async def store(records: list[spill.Record]) -> list[spill.StoreResult]:
        if not back.is_set():
            raise Unavailable("the database is away")
        return [spill.StoreResult("another payment has this id") for _ in records]

    monkeypatch.setitem(spill.KINDS, "attention", spill._Kind(store, None))
    await spill.append("attention", 7, b"a payment")

    async def waits() -> bool:
        [item] = await named("spill.waiting")
        return item.severity is not Severity.WELL

    try:
        await eventually(waits)
        [waiting] = await named("spill.waiting")
        assert waiting.sentence.startswith("1 accepted write in the spill of this host (1 attention)")
        back.set()
        await eventually(lambda: _is_set_aside())
        [kept] = await named("spill.set_aside")
        assert kept.severity is Severity.CRITICAL
        assert "accepted with 202, and not stored. The first reason: another payment has this id." in kept.sentence
    finally:
        await spill.loops.close()


async def _is_set_aside() -> bool:
    return bool(await named("spill.set_aside"))
