"""The janitor looks up payments that no worker looks up by itself, and leaves those with a clear answer to a worker."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from django.utils import timezone

from payments.models import Attempt, DeadLetter, Payment, PaymentEvent, Refund, SandboxBooking, SandboxRefund
from payments.reconciliation import janitor
from payments.reconciliation.janitor import BANDS, clean
from payments.settle import decisions, lifecycle
from payments.settle.decisions import MAX_QUESTIONS
from payments.states import SUCCEEDED, UNCERTAIN
from registry.data.chores import CHORES
from registry.models import AuditEntry
from tests.bed.stripe import sandbox_stripe
from tests.conftest import eventually
from tests.factories import in_thread, make_payment, make_processor, make_stripe
from tests.settling import accept, configure, settle_all, settle_until

FIRST, HOURLY, DAILY = BANDS
TEN_MINUTES = timedelta(minutes=10)
NEVER = "9999-12-31T00:00:00Z"


@pytest.fixture
async def stripe(tenant):
    async with sandbox_stripe() as running:
        await in_thread(make_stripe, tenant, running.url)
        yield running


@pytest.fixture
async def waiting(tenant, stripe) -> UUID:
    """A payment whose card asks its holder, for ten minutes by now; no worker is there."""
    [one] = await accept(tenant, method={"paymentMethod": "pm_card_threeDSecure2Required"})
    await settle_all(tenant, "requires_action")
    await age(one, TEN_MINUTES)
    return one


async def age(correlation_id: UUID, by: timedelta) -> None:
    mine = Payment.objects.filter(correlation_id=correlation_id)
    await in_thread(lambda: mine.update(changed_at=timezone.now() - by))


async def statuses(correlation_id: UUID) -> list[str]:
    mine = PaymentEvent.objects.filter(payment_id=(await payment(correlation_id)).pk)
    return await in_thread(lambda: list(mine.order_by("sequence").values_list("status", flat=True)))


async def payment(correlation_id: UUID) -> Payment:
    return await in_thread(lambda: Payment.objects.get(correlation_id=correlation_id))


def changes(stripe) -> list[str]:
    return [f"{seen.method} {seen.path}" for seen in stripe.received("POST")]


# -- What waits for an action ------------------------------------------------------------------------------------


async def test_a_payment_that_still_waits_at_the_processor_is_unchanged_and_has_no_event(tenant, stripe, waiting):
    before, asked = await statuses(waiting), changes(stripe)

    told = await clean(FIRST, [tenant.pk])

    assert told == {"requires_action": 1}
    assert (await statuses(waiting), changes(stripe)) == (before, asked)


async def test_a_payment_paid_meanwhile_is_settled_by_a_worker(tenant, stripe, waiting):
    await stripe.authenticates(stripe.all("payment_intent")[0]["id"])
    asked = changes(stripe)

    told = await clean(FIRST, [tenant.pk])

    assert told == {"booked": 1, "moved": 1}
    assert (await statuses(waiting))[-1] == "processing"
    await settle_all(tenant, "succeeded")
    assert changes(stripe) == asked


async def test_a_payment_refused_meanwhile_is_settled_by_a_worker(tenant, stripe, waiting):
    await stripe.authenticates(stripe.all("payment_intent")[0]["id"], passed=False)

    told = await clean(FIRST, [tenant.pk])

    assert told["moved"] == 1
    await settle_all(tenant, "failed")


@pytest.mark.parametrize(
    ("age_of_it", "band"),
    [(timedelta(minutes=10), FIRST), (timedelta(hours=3), HOURLY), (timedelta(days=3), DAILY)],
    ids=["minutes", "hours", "days"],
)
async def test_older_payments_are_looked_up_less_often(tenant, stripe, waiting, age_of_it, band):
    await age(waiting, age_of_it)

    asked = [one.name for one in BANDS if await clean(one, [tenant.pk])]

    assert asked == [band.name]


async def test_a_payment_that_has_just_begun_to_wait_is_not_looked_up(tenant, stripe, waiting):
    await age(waiting, timedelta(minutes=1))

    assert not await clean(FIRST, [tenant.pk])


async def test_a_processor_that_does_not_answer_changes_nothing(tenant, stripe, waiting):
    stripe.fails("error_before", on="GET /v1/payment_intents*")

    told = await clean(FIRST, [tenant.pk])

    assert told == {"unknown": 1}
    assert (await statuses(waiting))[-1] == "requires_action"


async def test_all_pages_are_read(tenant, stripe, waiting, monkeypatch):
    monkeypatch.setattr(janitor, "PAGE", 1)
    for _ in range(2):
        [one] = await accept(tenant, method={"paymentMethod": "pm_card_threeDSecure2Required"})
        await settle_all(tenant, "requires_action")
        await age(one, TEN_MINUTES)

    assert await clean(FIRST, [tenant.pk]) == {"requires_action": 3}


# -- What workers gave up ------------------------------------------------------------------------------------------


@pytest.fixture
async def books(tenant):
    return await in_thread(make_processor, tenant, "default", options={"longestDelay": 60})


@pytest.fixture
async def given_up(tenant, books) -> Payment:
    """A payment in doubt for two hours, that workers ask about no more."""
    then = timezone.now() - timedelta(hours=2)

    def make() -> Payment:
        made = make_payment(tenant, status=UNCERTAIN, processor=books, in_doubt_since=then, run_at=NEVER)
        Payment.objects.filter(pk=made.pk).update(changed_at=then)
        DeadLetter.objects.create(tenant=tenant, payment=made, code="tries_used_up")
        return made

    return await in_thread(make)


async def test_a_given_up_payment_that_was_booked_is_settled(tenant, books, given_up):
    await in_thread(lambda: book(books, given_up))

    told = await clean(HOURLY, [tenant.pk])

    assert told == {"booked": 1, "moved": 1}
    await settle_all(tenant, "succeeded")
    assert await in_thread(SandboxBooking.objects.count) == 1


def book(processor, payment) -> None:
    SandboxBooking.objects.create(
        processor_id=processor.pk,
        correlation_id=payment.correlation_id,
        amount=payment.amount,
        currency=payment.currency,
        requested_at=payment.created_at,
    )


async def test_a_payment_that_was_never_booked_is_due_once_its_longest_delay_is_over(tenant, books, given_up):
    told = await clean(HOURLY, [tenant.pk])

    assert told == {"not_booked": 1, "moved": 1}
    assert (await payment(given_up.correlation_id)).run_at <= timezone.now()


async def test_a_payment_that_stripe_never_created_is_paid_although_all_look_ups_were_used(tenant, stripe):
    """A look has to give its questions back: the first of them is too early to end a doubt."""
    await configure(tenant, "stripe", longestDelay=0.1)
    one = await in_thread(given_up_at_stripe, tenant, for_=timedelta(days=2))

    told = await clean(DAILY, [tenant.pk])

    assert told == {"not_booked": 1, "moved": 1}
    await settle_all(tenant, "succeeded")
    assert [intent["amount_received"] for intent in stripe.all("payment_intent")] == [one.amount]


async def test_a_payment_given_up_again_has_one_dead_letter(tenant, stripe, monkeypatch):
    monkeypatch.setattr(decisions, "MAX_QUESTIONS", 2)
    one = await in_thread(given_up_at_stripe, tenant, for_=timedelta(hours=2))
    stripe.fails("error_before")

    await lifecycle.look_again(tenant_id=tenant.pk, correlation_ids=[one.correlation_id])
    await settle_until(tenant, lambda: is_given_up_after(one, decisions.MAX_QUESTIONS))

    assert await in_thread(DeadLetter.objects.filter(payment=one).count) == 1


def given_up_at_stripe(tenant, *, for_: timedelta) -> Payment:
    """A payment by card of which its processor could not be asked for so long that workers gave up."""
    then = timezone.now() - for_
    made = make_payment(
        tenant,
        status=UNCERTAIN,
        processor=tenant.processors.get(),
        in_doubt_since=then,
        run_at=NEVER,
        attempt=MAX_QUESTIONS,
        method={"paymentMethod": "pm_card_visa"},
    )
    Payment.objects.filter(pk=made.pk).update(changed_at=then)
    Attempt.objects.filter(payment_id=made.pk).update(requested_at=then)
    DeadLetter.objects.create(tenant=tenant, payment=made, code="timeout")
    return made


async def is_given_up_after(one: Payment, questions: int) -> bool:
    now = await payment(one.correlation_id)
    return now.attempt == MAX_QUESTIONS + questions and now.run_at.year == 9999


async def test_a_payment_that_may_still_be_booked_is_unchanged(tenant, books, given_up):
    await in_thread(lambda: tenant.processors.update(options={"longestDelay": 9000}))

    told = await clean(HOURLY, [tenant.pk])

    assert told == {"not_booked": 1}
    assert (await payment(given_up.correlation_id)).run_at.year == 9999


async def test_payments_that_workers_still_look_up_are_left_to_them(tenant, books, given_up):
    await in_thread(lambda: Payment.objects.update(run_at=timezone.now() + timedelta(seconds=30)))

    assert not await clean(HOURLY, [tenant.pk])


@pytest.fixture
async def refund(tenant, books) -> Refund:
    """A refund in doubt that workers gave up two hours ago."""
    then = timezone.now() - timedelta(hours=2)

    def make() -> Refund:
        paid = make_payment(tenant, status=SUCCEEDED, processor=books, owed_back=500)
        book(books, paid)
        return Refund.objects.create(
            tenant=tenant, payment=paid, public_id=uuid4(), number=1, fingerprint=b"", amount=500, currency="BRL",
            processor=books, status="uncertain", requested_at=then, in_doubt_since=then, stopped_at=then, run_at=NEVER,
        )  # fmt: skip

    return await in_thread(make)


async def test_a_refund_that_was_returned_is_left_to_a_worker(tenant, books, refund):
    await in_thread(lambda: give_back(books, refund))

    told = await clean(HOURLY, [tenant.pk])

    again = await in_thread(Refund.objects.get)
    assert told == {"booked": 1, "moved": 1}
    assert (again.stopped_at, again.status) == (None, "uncertain")
    entry = await in_thread(AuditEntry.objects.get)
    assert (entry.action, entry.actor) == ("refund.retry", "janitor")


def give_back(processor, refund) -> None:
    SandboxRefund.objects.create(
        processor_id=processor.pk,
        refund_id=refund.public_id,
        correlation_id=refund.payment.correlation_id,
        amount=refund.amount,
        currency=refund.currency,
        requested_at=refund.requested_at,
    )


async def test_a_refund_that_the_processor_does_not_know_is_left_to_an_operator(tenant, books, refund):
    told = await clean(HOURLY, [tenant.pk])

    assert told == {"not_booked": 1}
    assert (await in_thread(Refund.objects.get)).stopped_at is not None


# -- On a schedule ---------------------------------------------------------------------------------------------------


async def test_all_chores_of_the_janitor_are_scheduled():
    wanted = {
        "janitor": 300, "janitor-hourly": 3600, "janitor-daily": 86400,
        "reconcile-hourly": 3600, "reconcile-daily": 86400, "prove-audit": 3600,
    }  # fmt: skip

    assert {name: CHORES[name].every for name in wanted} == wanted


async def test_the_chores_run(tenant, books, given_up, caplog):
    caplog.set_level("INFO")
    await in_thread(lambda: book(books, given_up))
    await in_thread(AuditEntry.objects.create, actor="olga", action="a.b", target="c", tenant=tenant)

    for name in ("janitor-hourly", "reconcile-hourly", "prove-audit"):
        await CHORES[name].run()

    told = {record.message for record in caplog.records}
    assert {"janitor looked payments up", "books compared", "audit trail holds"} <= told
    assert await eventually(lambda: in_thread(lambda: Payment.objects.filter(run_at__lt=timezone.now()).exists()))
