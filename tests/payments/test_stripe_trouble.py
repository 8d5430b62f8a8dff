"""Errors between the service and Stripe, and dying workers: one payment has one intent, paid once or not at all."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, ClassVar, Self
from uuid import UUID

import aiohttp
import pytest

from payments.models import Processor
from payments.processors.stripe import processor
from payments.settle import decisions, lifecycle
from payments.settle.work import PaymentWork
from queueing.work.drain import Drain
from registry.data import database
from tests.bed.stripe import SandboxStripe, sandbox_stripe
from tests.conftest import Api, eventually
from tests.factories import in_thread, make_processor, make_stripe
from tests.settling import configure, hasten, payments, settle_all, settle_due, tries

CREATE = "POST /v1/payment_intents"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """A request that is answered late, because the machine is busy, ends as one without an answer: paid once."""
    hasten(monkeypatch)
    monkeypatch.setattr(processor, "SEND_TIMEOUT", 0.3)
    monkeypatch.setattr(processor, "LOOK_UP_TIMEOUT", 0.6)
    monkeypatch.setattr(decisions, "LONGEST_BACKOFF", 0.05)


@pytest.fixture
async def stripe(tenant) -> AsyncIterator[SandboxStripe]:
    async with sandbox_stripe() as sandbox:
        await in_thread(make_stripe, tenant, sandbox.url)
        yield sandbox


def paid(stripe: SandboxStripe) -> list[int]:
    """What was received for each intent."""
    return [intent["amount_received"] for intent in stripe.all("payment_intent")]


@pytest.mark.parametrize(
    ("trouble", "seconds"),
    [
        ("drop_before", 0),
        ("drop_after", 0),
        ("error_before", 0),
        ("error_after", 0),
        ("slow_before", 0.5),
        ("slow_after", 0.5),
        ("rate_limit", 0),
    ],
)
async def test_one_intent_is_paid_once_whatever_happens_to_the_first_request(
    api: Api, tenant, stripe, trouble, seconds
):
    stripe.fails(trouble, on=CREATE, times=1, seconds=seconds)

    payment = await api.pay(paymentMethod="pm_card_visa")
    await settle_all(tenant)

    assert paid(stripe) == [1990]
    assert {attempt.outcome for attempt in await tries(payment["correlationId"])} <= {"booked", "unknown", "not_booked"}


async def test_a_repeat_of_an_uncertain_payment_has_the_same_key(api: Api, tenant, stripe):
    stripe.fails("drop_before", on=CREATE, times=2)

    await api.pay(paymentMethod="pm_card_visa")
    await settle_all(tenant)

    assert len({request.idempotency_key for request in stripe.received(CREATE)}) == 1
    assert len(stripe.received(CREATE)) == 3


async def test_a_payment_whose_key_always_returns_500_is_requested_under_a_new_key(api: Api, tenant, stripe):
    await configure(tenant, "stripe", longestDelay=0.1)
    stripe.fails("error_kept", on=CREATE, times=1)

    await api.pay(paymentMethod="pm_card_visa")
    await settle_all(tenant)

    assert len({request.idempotency_key for request in stripe.received(CREATE)}) == 2
    assert paid(stripe) == [1990]


async def test_a_payment_uncertain_for_longer_than_keys_are_kept_is_sent_again_after_the_longest_delay(
    api: Api, tenant, stripe
):
    """It was never there. To ask for it again under a key that is forgotten must not renew the doubt each time."""
    await configure(tenant, "stripe", longestDelay=0.1)
    stripe.fails("drop_before", on=CREATE)
    payment = await api.pay(paymentMethod="pm_card_visa")
    await settle_all(tenant, "uncertain")
    stripe.recovers()
    await database.fetch(
        "UPDATE payments_attempt SET requested_at = requested_at - interval '2 days' WHERE tenant_id = %s", [tenant.pk]
    )

    await settle_all(tenant)

    assert paid(stripe) == [1990]
    assert {"key_forgotten", "never_booked"} <= {attempt.code for attempt in await tries(payment["correlationId"])}


async def test_an_intent_that_was_created_is_found_in_the_list_and_not_requested_again(api: Api, tenant, stripe):
    stripe.fails("drop_after", on=CREATE, times=1)

    await api.pay(paymentMethod="pm_card_visa")
    await settle_all(tenant)

    assert len(stripe.received(CREATE)) == 1
    assert [r.path for r in stripe.received("GET")] == ["/v1/payment_intents"]


async def test_an_uncertain_payment_is_sent_to_no_other_processor(api: Api, tenant, stripe):
    await in_thread(make_processor, tenant, "dearer", fee="0.50")
    stripe.fails("drop_after", on=CREATE, times=1)
    stripe.fails("error_before", on="GET *", times=2)

    await api.pay(paymentMethod="pm_card_visa")
    [settled] = await settle_all(tenant)

    assert settled.processor == "stripe"
    assert paid(stripe) == [1990]


@pytest.mark.parametrize(
    "trouble",
    [{"trouble": "rate_limit"}, {"trouble": "refuse", "status": 400}, {"trouble": "refuse", "status": 401}],
    ids=["429", "400", "401"],
)
async def test_errors_for_longer_than_the_longest_delay_do_not_end_uncertainty(
    api: Api, worker, tenant, stripe, trouble
):
    """It was booked. Nobody who is refused an answer about it may take that for a no, and pay a second time."""
    await configure(tenant, "stripe", longestDelay=0.2)
    await in_thread(make_processor, tenant, "dearer", fee="0.50")
    stripe.fails("drop_after", on=CREATE, times=1)
    stripe.fails(**trouble)

    payment = await api.pay(paymentMethod="pm_card_visa")
    await eventually(lambda: asked_for_longer_than(payment, 0.4))
    stripe.recovers()
    settled = await api.until(payment["correlationId"], "succeeded", "failed")

    assert (settled["status"], settled["processor"]) == ("succeeded", "stripe")
    assert paid(stripe) == [1990]
    assert "never_booked" not in {attempt.code for attempt in await tries(payment["correlationId"])}


async def asked_for_longer_than(payment: dict, seconds: float) -> bool:
    """Since the first answer was lost, which is what doubt is counted from while repeats are refused."""
    started = [attempt.started_at for attempt in await tries(payment["correlationId"])]
    return bool(started) and (max(started) - min(started)).total_seconds() > seconds


async def test_a_decline_whose_response_was_lost_is_a_decline(api: Api, tenant, stripe):
    stripe.fails("drop_after", on=CREATE, times=1)

    payment = await api.pay(paymentMethod="pm_card_chargeDeclinedInsufficientFunds")
    await settle_all(tenant, "failed")

    assert (await api.detail(payment["correlationId"]))["code"] == "insufficient_funds"
    assert [intent["status"] for intent in stripe.all("payment_intent")] == ["canceled"]


@pytest.mark.parametrize("step", ["capture", "cancel"])
@pytest.mark.parametrize("trouble", ["drop_before", "drop_after", "error_after", "error_kept"])
async def test_a_capture_or_cancel_whose_response_was_lost_is_done_once(api: Api, tenant, stripe, step, trouble):
    await in_thread(_manual, tenant)
    payment = await api.pay(paymentMethod="pm_card_visa")
    await settle_all(tenant, "requires_action")
    stripe.fails(trouble, on=f"*/{step}", times=1)

    async with api.post(f"/payments/{payment['correlationId']}/{step}") as response:
        assert response.status == 202
    end = {"capture": "succeeded", "cancel": "canceled"}[step]
    await settle_all(tenant, end)

    [intent] = stripe.all("payment_intent")
    assert intent["status"] == end


def _manual(tenant) -> None:
    Processor.objects.filter(tenant=tenant).update(options={"capture": "manual"})


async def test_a_partial_capture_elsewhere_is_not_booked_and_left_to_an_operator(api: Api, tenant, stripe):
    await in_thread(_manual, tenant)
    payment = await api.pay(paymentMethod="pm_card_visa")
    await settle_all(tenant, "requires_action")
    [intent] = stripe.all("payment_intent")
    await capture_in_dashboard(stripe, intent["id"], 500)

    await lifecycle.look_again(tenant_id=tenant.pk, correlation_ids=[UUID(payment["correlationId"])])
    await settle_due()
    [row] = await payments(tenant)

    letters = await database.fetch("SELECT code FROM payments_deadletter WHERE tenant_id = %s", [tenant.pk])
    booked = await database.fetch("SELECT account FROM payments_ledgerentry WHERE tenant_id = %s", [tenant.pk])
    assert (row.status, letters, booked) == ("uncertain", [("amount_differs",)], [])


async def capture_in_dashboard(stripe: SandboxStripe, intent: str, amount: int) -> None:
    where, key = f"{stripe.url}/v1/payment_intents/{intent}/capture", {"Authorization": f"Bearer {stripe.secret_key}"}
    async with aiohttp.request("POST", where, data={"amount_to_capture": amount}, headers=key) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("when", ["unsent", "under way", "executed", "answered"])
async def test_a_worker_that_dies_leaves_one_intent_to_the_next(api: Api, tenant, stripe, when, monkeypatch):
    """Before its request, while that is under way, after it and before the answer, between the answer and the settling."""
    if trouble := {"under way": "slow_before", "executed": "slow_after"}.get(when):
        stripe.fails(trouble, on=CREATE, times=1, seconds=0.5)
    await api.pay(paymentMethod="pm_card_visa")

    async with Dying(when) as worker:
        await eventually(lambda: worker.stuck if when in worker.STOPS else stripe.received(CREATE))
    [left] = await payments(tenant)
    await let_leases_lapse(tenant)
    await settle_all(tenant)

    assert left.status == "processing"  # it died before the outcome was stored
    assert paid(stripe) == [1990]
    assert len(stripe.all("charge")) == 1


class Dying:
    """A worker that is killed on leaving: what it had in flight is neither settled nor handed back."""

    STOPS: ClassVar = {"unsent": "_send", "answered": "_write"}  # where it stops, as if it were suspended there

    def __init__(self, when: str) -> None:
        self.stuck = False
        self.work = PaymentWork()
        if name := self.STOPS.get(when):
            setattr(self.work, name, self._stop)

    async def _stop(self, *of: object) -> Any:
        self.stuck = True
        await asyncio.Event().wait()

    async def __aenter__(self) -> Self:
        self.drain = Drain(self.work)
        self.task = asyncio.create_task(self.drain.run(seconds=600))
        return self

    async def __aexit__(self, *error: object) -> None:
        tasks = [self.task, *self.drain.in_flight]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.work.close()


async def let_leases_lapse(tenant) -> None:
    await database.fetch(
        "UPDATE payments_payment SET leased_until = now() - interval '1 second' WHERE tenant_id = %s", [tenant.pk]
    )


async def test_a_report_while_a_worker_has_leased_the_payment_causes_another_look_up(api: Api, worker, tenant, stripe):
    """What it was told may be older than the news: it asks once more in place of leaving the payment to wait."""
    payment = await api.pay(paymentMethod="pm_card_threeDSecure2Required")
    await api.until(payment["correlationId"], "requires_action")
    [intent] = stripe.all("payment_intent")
    stripe.fails("slow_after", on="GET *", times=1, seconds=0.3)
    ids = [UUID(payment["correlationId"])]
    await lifecycle.look_again(tenant_id=tenant.pk, correlation_ids=ids)
    await eventually(lambda: stripe.received(f"GET /v1/payment_intents/{intent['id']}"))
    await stripe.authenticates(intent["id"])

    await lifecycle.look_again(tenant_id=tenant.pk, correlation_ids=ids)
    await api.until(payment["correlationId"], "succeeded")

    assert [event["status"] for event in (await api.detail(payment["correlationId"]))["timeline"]] == [
        "queued", "processing", "requires_action", "processing", "succeeded",
    ]  # fmt: skip
