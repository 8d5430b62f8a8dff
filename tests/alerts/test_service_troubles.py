"""Each trouble of the service's work is provoked, fires its alert within its time, and resolves it when it ends: one message each."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from prometheus_client import REGISTRY

from payments.books import ledger
from payments.models import DeadLetter, Endpoint
from payments.settle import dead_letters, decisions
from payments.settle.lifecycle import look_again
from payments.settle.work import PAYMENTS
from payments.states import FAILED, REQUIRES_ACTION
from queueing.models import WebhookDelivery, Worker
from queueing.outbound import endpoints
from queueing.outbound.work import DELIVERIES
from queueing.work import chore_runs
from queueing.work.drain import Drain
from queueing.work.entry import DRAINS
from registry.data import database
from registry.data.chores import CHORES, Chore
from registry.models import BookCheck, Tenant
from registry.operators import book_checks
from registry.operators.alerts import rules
from registry.operators.alerts.evaluator import AlertEvaluator
from registry.operators.alerts.measuring import Measured
from registry.operators.alerts.rules import AlertRule, Scope
from registry.tenants import audit
from tests.alerts.conftest import Alarm
from tests.alerts.watching import ELSEWHERE
from tests.bed import HttpProcessor
from tests.bed.receiver import Receiver
from tests.conftest import Api, at_work, eventually
from tests.factories import in_thread, make_payment, make_processor
from tests.queueing.hooks import again, delivering, endpoint, until
from tests.queueing.test_jobs import get, post, run, submit
from tests.registry.alerting import HOST, ElectedAtOnce
from tests.registry.test_audit_chain import tamper
from tests.settling import accept, hasten, settle_all, settle_due, until_settled

CENT = "UPDATE payments_ledgerentry SET amount = amount + %s WHERE id = (SELECT min(id) FROM payments_ledgerentry)"
ROLLUP = "UPDATE payments_rollup SET fee = fee + %s"


@asynccontextmanager
async def workers_of_all_queues() -> AsyncIterator[None]:
    """A worker for each queue in this loop, as `up` has them."""
    async with AsyncExitStack() as stack:
        for kind in DRAINS.values():
            drain = Drain(kind())
            task = asyncio.create_task(drain.run(seconds=600))
            stack.push_async_callback(drain.work.close)
            stack.push_async_callback(asyncio.wait, {task})
            stack.callback(drain.stop)
        await eventually(_all_report)
        yield


async def _all_report() -> bool:
    async with database.own_connection():
        return await Worker.async_objects.filter(queue__in=DRAINS).acount() == len(DRAINS)


@pytest.fixture
async def sandbox(tenant: Tenant) -> None:
    await in_thread(make_processor, tenant, "default", fee="0.05")


# -- Workers and queues ------------------------------------------------------------------------------------------


async def test_no_worker(alarm: Alarm):
    alert = alarm("workers", "no worker runs")
    async with workers_of_all_queues():
        await alert.is_quiet()

    await alert.fires()

    async with workers_of_all_queues():
        await alert.resolves()


async def test_all_places_for_processes_are_taken(alarm: Alarm):
    alert = alarm("workers.processes", "all places for child processes are taken")
    reports = timezone.now() + timedelta(hours=1)  # the evaluator's half an hour is seconds of the database
    busy = Worker(queue="jobs", hostname="here", pid=1, places=2, processes=1, heartbeat_at=reports)
    await in_thread(busy.save)
    await alert.is_quiet()

    busy.processes = 2
    await in_thread(busy.save)
    await alert.fires()

    busy.processes = 1
    await in_thread(busy.save)
    await alert.resolves()


@pytest.mark.parametrize("name", ["queues", "queues.stuck"])
async def test_a_payment_that_no_worker_takes(alarm: Alarm, tenant: Tenant, sandbox: None, name: str):
    alert = alarm(name, "a payment is due, and no worker takes it")
    await accept(tenant)
    await alert.is_quiet()

    await database.fetch("UPDATE payments_payment SET run_at = now() - interval '301 seconds'")
    await alert.fires()

    await settle_all(tenant)
    await alert.resolves()


async def test_a_payment_that_is_not_settled(alarm: Alarm, tenant: Tenant, default: HttpProcessor):
    alert = alarm("queues.unfinished", "a payment is tried again and again")
    default.fails()
    await accept(tenant)
    await settle_due()
    await alert.is_quiet()

    await database.fetch("UPDATE payments_payment SET created_at = now() - interval '601 seconds'")
    await alert.fires()

    default.recovers()
    await settle_all(tenant)
    await alert.resolves()


@pytest.mark.parametrize("column", ["enabled = false", "rest_until = now() + interval '1 hour'"])
async def test_what_is_owed_to_an_endpoint_that_is_off_or_rests_waits_for_no_worker(tenant: Tenant, column: str):
    here = await endpoint(tenant, "https://93.184.215.14/")
    await in_thread(
        lambda: WebhookDelivery.objects.create(
            tenant=tenant, endpoint_id=here.pk, message_id="msg_1", run_at=timezone.now()
        )
    )
    before = await DELIVERIES.standing(None)
    await database.fetch(f"UPDATE queueing_webhookendpoint SET {column}")
    after = await DELIVERIES.standing(None)

    assert (before.due, before.due_for is not None) == (1, True)
    assert (after.open, after.due, after.due_for) == (1, 0, None)


async def test_a_payment_whose_payer_acted_late_waits_for_us_since_then(tenant: Tenant):
    old = timezone.now() - timedelta(days=2)
    payment = await in_thread(make_payment, tenant, status=REQUIRES_ACTION, created_at=old)
    waits = (await PAYMENTS.standing(None)).accepted_for
    await look_again(tenant_id=tenant.pk, correlation_ids=[payment.correlation_id])

    assert waits is None
    assert (await PAYMENTS.standing(None)).accepted_for == pytest.approx(0, abs=60)


async def test_a_chore_that_fails(alarm: Alarm, monkeypatch: pytest.MonkeyPatch):
    outcomes: list[Exception | None] = [None, ValueError("no such table"), None]

    async def work() -> None:
        if error := outcomes.pop(0):
            raise error

    monkeypatch.setitem(CHORES, "test-chore", Chore(60, work))
    alert = alarm("chores", "a periodic task fails")
    await chore_runs.recorded("test-chore")
    await alert.is_quiet()

    with pytest.raises(ValueError, match="no such table"):
        await chore_runs.recorded("test-chore")
    await alert.fires()

    await chore_runs.recorded("test-chore")
    await alert.resolves()


async def test_failed_jobs(alarm: Alarm, api: Api):
    alert = alarm("jobs.failed", "a job failed in every attempt")
    await alert.is_quiet()

    job = await submit(api, kind="test.fail", input={"text": "for good"})
    await run()
    await alert.fires()

    await post(api, f"/jobs/{job['id']}/retry", 202)
    assert (await get(api, f"/jobs/{job['id']}"))["status"] == "queued"
    await alert.resolves()


# -- Processors and payments ---------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


async def test_an_open_breaker(alarm: Alarm, quick: None, tenant: Tenant, default: HttpProcessor):
    alert = alarm("processors.down", "a processor answers 500: its breaker opens")
    await alert.is_quiet()
    async with at_work():
        default.fails()
        await accept(tenant, 6)
        await eventually(lambda: breakers("open", "half_open"))
        await alert.fires()

        default.recovers()
        await until_settled(tenant)
        await eventually(is_well)
        await alert.resolves()


async def is_well() -> bool:
    async with database.own_connection():
        return not await Endpoint.async_objects.exclude(breaker="closed", failing=False).aexists()


async def breakers(*states: str) -> bool:
    async with database.own_connection():
        return await Endpoint.async_objects.filter(breaker__in=states).aexists()


async def test_a_slow_processor(alarm: Alarm, tenant: Tenant, default: HttpProcessor):
    alert = alarm("processors.slow", "a processor takes 1.2 s to answer")
    async with at_work():
        await accept(tenant, 4)
        await until_settled(tenant)
        await alert.is_quiet()

        default.delays(1200)
        await accept(tenant, 4)
        await eventually(lambda: response_seconds() > 1)
        await alert.fires()

        default.recovers()
        await accept(tenant, 4)
        await eventually(lambda: response_seconds() < 1)
        await alert.resolves()


def response_seconds() -> float:
    return REGISTRY.get_sample_value("registry_processor_response_seconds", {"kind": "http"}) or 0.0


async def test_dead_letters(alarm: Alarm, tenant: Tenant, default: HttpProcessor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decisions, "MAX_ATTEMPTS", 2)
    alert = alarm("payments.dead_letters", "a payment ran out of attempts")
    await alert.is_quiet()

    default.answers(401)
    await accept(tenant)
    await settle_all(tenant, FAILED)
    await alert.fires()

    async with database.own_connection():
        [letter] = [one async for one in DeadLetter.async_objects.filter(tenant=tenant)]
        assert await dead_letters.close(dead_letter_id=letter.pk, actor="olga", reason="the order was canceled")
    await alert.resolves()


# -- Books -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "trouble", "change"),
    [
        ("ledger.proof", "a line of the ledger is a cent off", CENT),
        ("rollups.proof", "a roll-up is a cent off", ROLLUP),
    ],
)
async def test_a_cent_is_off(alarm: Alarm, tenant: Tenant, sandbox: None, name: str, trouble: str, change: str):
    alert = alarm(name, trouble)
    await accept(tenant, 2)
    await settle_all(tenant)
    await prove()
    await alert.is_quiet()

    await database.fetch(change, [1])
    await prove()
    await alert.fires()

    await database.fetch(change, [-1])
    await prove()
    await alert.resolves()


async def prove() -> None:
    async with database.own_connection():
        await ledger.prove_ledger()


async def test_the_books_differ(alarm: Alarm, tenant: Tenant, sandbox: None):
    alert = alarm("books.check", "the nightly check finds a difference")
    await accept(tenant, 2)
    await settle_all(tenant)
    await check_books()
    await alert.is_quiet()

    await database.fetch(ROLLUP, [1])
    await check_books()
    await alert.fires()

    await database.fetch(ROLLUP, [-1])
    await check_books()
    await alert.resolves()


async def check_books() -> None:
    """As in another night."""
    async with database.own_connection():
        await BookCheck.async_objects.all().adelete()
        await book_checks.check_tonight()


async def test_the_audit_trail_is_changed(alarm: Alarm, tenant: Tenant):
    alert = alarm("audit.proof", "an entry of the audit log is changed")
    async with database.own_connection():
        await audit.record(actor="olga", action="key.create", target="key", tenant_id=tenant.pk)
    await chore_runs.recorded("prove-audit")
    await alert.is_quiet()

    await in_thread(tamper, "UPDATE registry_auditentry SET actor = 'mallory' WHERE tenant_id = %s", tenant.pk)
    await chore_runs.recorded("prove-audit")
    await alert.fires()

    await in_thread(tamper, "UPDATE registry_auditentry SET actor = 'olga' WHERE tenant_id = %s", tenant.pk)
    await chore_runs.recorded("prove-audit")
    await alert.resolves()


# -- Webhooks --------------------------------------------------------------------------------------------------------


async def test_a_webhook_endpoint_is_disabled(alarm: Alarm, tenant: Tenant, sandbox: None):
    alert = alarm("endpoints.disabled", "a webhook endpoint answers 410 and is disabled")
    await alert.is_quiet()
    async with Receiver() as receiver:
        receiver.answers(410)
        hook = await endpoint(tenant, receiver.url, "payment.queued")
        await accept(tenant)
        async with delivering():
            await eventually(lambda: is_off(hook))
        await alert.fires()

    async with database.own_connection():
        assert await endpoints.switch(tenant_id=tenant.pk, uuid=hook.uuid, enabled=True)
    await alert.resolves()


async def is_off(hook: Any) -> bool:
    return not (await again(hook)).enabled


async def test_webhooks_that_fail_and_fail(alarm: Alarm, tenant: Tenant, sandbox: None):
    alert = alarm("deliveries.failing", "a receiver of webhooks answers 500 (more than 5 times)", 'increase(registry_webhook_tries_total{outcome="failed"}[10m]) > 5')  # fmt: skip
    async with Receiver() as receiver:
        hook = await endpoint(tenant, receiver.url, "payment.queued")
        await accept(tenant)
        async with delivering():
            await until(hook, "delivered")
            await alert.is_quiet()

            receiver.answers(500)
            before = failed_tries()
            await accept(tenant, 8)
            await eventually(lambda: failed_tries() > before + 5)
            await alert.fires()
    await alert.resolves()


def failed_tries() -> float:
    return REGISTRY.get_sample_value("registry_webhook_tries_total", {"outcome": "failed"}) or 0.0


# -- All rules ---------------------------------------------------------------------------------------------------------


def test_every_rule_is_provoked_or_has_a_reason_why_not():
    texts = [path.read_text().partition("# -- All rules")[0] for path in Path(__file__).parent.glob("test_*.py")]
    provoked = {one.name for one in rules.rules() if any(f'"{one.name}"' in text for text in texts)}

    assert {one.name for one in rules.rules()} == provoked | ELSEWHERE.keys()
    assert not provoked & ELSEWHERE.keys()


@pytest.mark.parametrize("scope", ["service", "host"])
async def test_where_all_is_well_no_rule_of_the_service_holds(tenant: Tenant, sandbox: None, scope: Scope):
    """With a worker for each queue, after a payment was settled and everything was proven."""
    await accept(tenant)
    await settle_all(tenant)
    await prove()
    await check_books()
    evaluator = AlertEvaluator(scope, HOST if scope == "host" else "", ElectedAtOnce())
    async with workers_of_all_queues():
        measured = await eventually(lambda: without_trouble(evaluator))

    assert {rule.name for rule in measured} == {rule.name for rule in rules.rules(scope)}
    assert {rule.name for rule, found in measured.items() if found.value is None} <= MAY_BE_ABSENT


async def without_trouble(evaluator: AlertEvaluator) -> dict[AlertRule, Measured]:
    """What the rules amount to, once none holds: a pool that grows makes callers wait for a moment."""
    measured = await evaluator._measure(datetime.now(UTC))
    return {} if any(found.holds for found in measured.values()) else measured


# Metrics that a process has only after the first trouble, or once its spill was used.
MAY_BE_ABSENT = {"database.away", "database.statements", "spill.waiting", "spill.refuses"}
