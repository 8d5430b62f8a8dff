"""The page of a payment in every state that nobody expects: what happened, what it means for the money, and an action that resolves it.

Each state is made by real settling at processors of the bed; SQL stands only where a processor's own books change.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from playwright.async_api import Locator, Page, expect

from payments.models import Endpoint, Processor
from payments.reconciliation.comparison import Window, reconcile
from payments.refunds import decisions as refund_decisions
from payments.refunds.work import RefundWork
from payments.settle import decisions, lifecycle
from registry.data import database
from registry.models import AuditEntry
from tests.bed import HttpProcessor
from tests.bed.stripe import WEBHOOK_SECRET, SandboxStripe, sandbox_stripe
from tests.browser.conftest import BRIEFLY, Guard, hurry, looks_right
from tests.conftest import Api, at_work, eventually
from tests.factories import in_thread, make_person, make_processor, make_stripe
from tests.payments.comparing import account
from tests.payments.refunding import ask, hearing, pay_back, refunds_of, skip_refund_pauses
from tests.queueing.test_console import session_of
from tests.settling import configure, hasten, settle_all, settle_due, settle_until, skip_pauses
from tests.settling import opened as working

WHY = "the acquirer's support has answered"


@pytest.fixture
def cookies(signed_in: list[Any]) -> list[Any]:
    return signed_in


@pytest.fixture
async def acquirer(tenant) -> AsyncIterator[HttpProcessor]:
    """The cheapest processor, and the only one that is switched on."""
    async with HttpProcessor() as bed:
        await in_thread(make_processor, tenant, "acquirer", kind="http", url=bed.url, fee="0.01")
        for name in ("default", "fallback"):
            await configure(tenant, name, enabled=False)
        yield bed


@pytest.fixture
async def stripe(tenant, server: str, guard: Guard) -> AsyncIterator[SandboxStripe]:
    """The tenant's account at the sandbox Stripe, which tells us of everything that happens there."""
    async with sandbox_stripe() as sandbox:
        keys = {"secretKey": sandbox.secret_key, "webhookSecrets": [WEBHOOK_SECRET]}
        await in_thread(make_stripe, tenant, sandbox.url, fee="0.01", secrets=keys)
        sandbox.calls(f"{server}/webhooks/stripe/{tenant.slug}.stripe")
        guard.allowed.append(f"outside: {sandbox.url}/")
        yield sandbox


# -- Steps of the tests ------------------------------------------------------------------------------------


async def opened(page: Page, tenant, payment: dict[str, Any]) -> None:
    await page.goto(f"/payments/{payment['correlationId']}/live?tenant={tenant.slug}")
    await expect(page.locator("[data-live=live]")).to_be_visible()


def banner(page: Page, state: str) -> Locator:
    return page.locator(f'.explained[data-state="{state}"]')


async def says(page: Page, state: str, *texts: str) -> None:
    for text in texts:
        await expect(banner(page, state)).to_contain_text(text)


async def act(page: Page, state: str, label: str, *warnings: str) -> None:
    """Choose the action of the banner, and confirm it with a reason."""
    await banner(page, state).get_by_role("link", name=label).click()
    for warning in warnings:
        await expect(page.locator(".guard")).to_contain_text(warning)
    await page.get_by_label("Why").fill(WHY)
    await page.locator(".guard button[type=submit]").click()
    await expect(page.locator(".bar.said.success")).to_be_visible()


async def shows(page: Page, word: str) -> None:
    await expect(page.locator("[data-pill-here] .pill")).to_contain_text(word)


async def recorded(action: str) -> bool:
    return await in_thread(AuditEntry.objects.filter(action=action, reason=WHY).exists)


async def to_payer(page: Page, payment: dict[str, Any], *texts: str) -> None:
    """What the payer's page says, which has no banner and no action of the seller's."""
    await page.goto(payment["liveUrl"])
    for text in texts:
        await expect(page.locator("article")).to_contain_text(text)
    await expect(page.locator(".explained, .offers")).to_have_count(0)


# -- Before the outcome --------------------------------------------------------------------------------------


async def test_a_payment_waits_because_no_processor_takes_payments(
    page: Page, tenant, api: Api, monkeypatch, tmp_path: Path
):
    hasten(monkeypatch)
    for name in ("default", "fallback"):
        await configure(tenant, name, failing=True)
    async with at_work():
        for _ in range(12):
            payment = await api.pay()
        await eventually(both_breakers_open)
        await page.goto("/")
    await opened(page, tenant, payment)

    await says(
        page, "waiting", "No processor takes this payment now: the circuit breakers of default and fallback are open."
    )
    await says(page, "waiting", "No money has moved.", "nothing is lost")
    await looks_right(page, "waiting", tmp_path, BRIEFLY)
    await act(page, "waiting", "Cancel payment", "No money has moved, and none will.")
    await shows(page, "canceled")
    await to_payer(page, payment, "The payment was canceled.", "You have not been charged.")


async def both_breakers_open() -> bool:
    return await in_thread(Endpoint.objects.exclude(breaker="closed").count) == 2


async def test_a_scheduled_payment_says_when(page: Page, tenant, api: Api, tmp_path: Path):
    due = (datetime.now(UTC) + timedelta(days=3)).replace(microsecond=0)
    payment = await api.pay(scheduledFor=due.isoformat())
    await opened(page, tenant, payment)

    await says(page, "scheduled", "It is scheduled for later.", "No money moves before that time.")
    await says(page, "scheduled", f"Scheduled for {due:%a %Y-%m-%d %H:%M} UTC")
    await looks_right(page, "scheduled", tmp_path, BRIEFLY)
    await to_payer(
        page, payment, "The payment is scheduled for later.", "You are not charged before", f"{due:%Y-%m-%d %H:%M}"
    )
    await opened(page, tenant, payment)
    await act(page, "scheduled", "Cancel payment")
    await shows(page, "canceled")


async def in_doubt(api: Api, tenant, acquirer: HttpProcessor, asked: int) -> dict[str, Any]:
    """A payment that the acquirer booked, without a word, and was asked about so often."""
    acquirer.resets_connections(books=True)
    acquirer.lookups_answer(503)
    payment = await api.pay()
    for _ in range(1 + asked):
        await settle_due()
        await skip_pauses(tenant)
    return payment


async def test_an_uncertain_payment_says_how_often_its_processor_was_asked(
    page: Page, tenant, api: Api, acquirer: HttpProcessor, tmp_path: Path
):
    payment = await in_doubt(api, tenant, acquirer, 14)
    await hurry(page)
    await opened(page, tenant, payment)

    await says(page, "uncertain", "acquirer has not said whether it booked the payment; it is asked until it does.")
    await says(page, "uncertain", "The payer may have been charged R$19.90, once at most", "Asked 14 times, last")
    await expect(page.locator(".timeline .repeated")).to_contain_text("Asked 14 times, last")
    await looks_right(page, "uncertain", tmp_path, BRIEFLY)
    await settle_due()
    await says(page, "uncertain", "Asked 15 times")  # a look-up is no event of the payment
    acquirer.recovers()
    await act(page, "uncertain", "Ask now", "No money moves by asking.")
    await settle_due()
    await shows(page, "succeeded")
    assert await recorded("payment.look_again")


async def test_a_payment_is_retried(page: Page, tenant, api: Api, acquirer: HttpProcessor, tmp_path: Path):
    acquirer.fails()
    payment = await api.pay()
    await settle_due()
    await opened(page, tenant, payment)

    await says(page, "retrying", "acquirer did not book it (HTTP 500); it is tried again.")
    await says(page, "retrying", "No money has moved.", "it is given up after 25 attempts")
    await looks_right(page, "retrying", tmp_path, BRIEFLY)
    await act(page, "retrying", "Cancel payment")
    await shows(page, "canceled")


async def test_a_payment_requires_an_action_of_the_payer(
    page: Page, tenant, api: Api, stripe: SandboxStripe, tmp_path: Path
):
    payment = await api.pay(paymentMethod="pm_card_threeDSecure2Required")
    await settle_due()
    await opened(page, tenant, payment)

    await says(page, "requires_action", "The payer has to confirm it at the bank.", "Nothing has been charged")
    await looks_right(page, "requires-action", tmp_path, BRIEFLY)
    await banner(page, "requires_action").get_by_role("link", name="Open the payer's page").click()
    await expect(page.locator("article")).to_contain_text("You have not been charged yet.")
    button, timeline = page.get_by_role("link", name="Confirm at your bank"), page.locator(".timeline")
    assert (await button.bounding_box())["y"] < (await timeline.bounding_box())["y"]
    await looks_right(page, "payer-requires-action", tmp_path, BRIEFLY)
    await button.click()
    await page.get_by_role("button", name="Complete authentication").click()
    await settle_all(tenant)
    await shows(page, "succeeded")


async def test_an_authorized_payment_is_captured(page: Page, tenant, api: Api, stripe: SandboxStripe, tmp_path: Path):
    await configure(tenant, "stripe", capture="manual")
    payment = await api.pay(paymentMethod="pm_card_visa")
    await settle_due()
    await opened(page, tenant, payment)

    await says(page, "requires_action", "It is authorized at stripe, and waits for its capture.")
    await says(page, "requires_action", "R$19.90 is held on the payer's card and not collected yet.")
    await looks_right(page, "authorized", tmp_path, BRIEFLY)
    await act(page, "requires_action", "Capture R$19.90", "R$19.90, which is held on the payer's card, is collected.")
    await settle_due()
    await shows(page, "succeeded")
    assert await recorded("payment.capture")


# -- Failed and given up -----------------------------------------------------------------------------------------


async def test_a_dead_letter_whose_money_may_have_moved(
    page: Page, tenant, api: Api, acquirer: HttpProcessor, monkeypatch, tmp_path: Path
):
    monkeypatch.setattr(decisions, "MAX_QUESTIONS", 4)
    payment = await in_doubt(api, tenant, acquirer, 4)
    await opened(page, tenant, payment)

    await says(
        page, "dead_letter", "It was given up after 4 attempts: acquirer never said whether it booked the payment."
    )
    await says(page, "dead_letter", "Money may have moved: the payer may have been charged R$19.90, once at most.")
    await says(page, "dead_letter", "Look for this payment id in the books of acquirer")
    await expect(page.locator("article")).not_to_contain_text("asked until it does")
    await looks_right(page, "dead-letter", tmp_path, BRIEFLY)
    await to_payer(page, payment, "The payment could not be confirmed.", "Ask Corner shop before you pay again.")
    acquirer.recovers()
    await opened(page, tenant, payment)
    await act(page, "dead_letter", "Ask again", "A worker asks acquirer first", "charged once at most")
    await settle_due()
    await shows(page, "succeeded")


async def test_closing_a_dead_letter_in_doubt_says_what_that_means_for_the_money(
    page: Page, tenant, api: Api, acquirer: HttpProcessor, monkeypatch, tmp_path: Path
):
    monkeypatch.setattr(decisions, "MAX_QUESTIONS", 3)
    payment = await in_doubt(api, tenant, acquirer, 3)
    await opened(page, tenant, payment)

    await act(
        page,
        "dead_letter",
        "Close",
        "for 60 days acquirer is still asked now and then",
        "the payer stays charged R$19.90",
        "Nothing is refunded by this.",
    )
    await says(
        page, "closed", "acquirer is asked only now and then, for 60 days.", "the payer may have been charged R$19.90"
    )
    await looks_right(page, "closed", tmp_path, BRIEFLY)
    acquirer.recovers()
    await act(page, "closed", "Ask now")
    await settle_due()
    await shows(page, "succeeded")


async def test_a_dead_letter_of_which_nothing_was_booked(
    page: Page, tenant, api: Api, acquirer: HttpProcessor, monkeypatch, tmp_path: Path
):
    monkeypatch.setattr(decisions, "MAX_ATTEMPTS", 3)
    acquirer.answers(401)
    payment = await api.pay()
    await settle_all(tenant, "failed")
    await opened(page, tenant, payment)

    await says(page, "dead_letter", "It was given up after 3 attempts; the last answer: HTTP 401.")
    await says(page, "dead_letter", "No money has moved: every attempt was certainly not booked.")
    await looks_right(page, "dead-letter-failed", tmp_path, BRIEFLY)
    await to_payer(page, payment, "The payment failed.", "You have not been charged.")
    acquirer.recovers()
    await opened(page, tenant, payment)
    await act(page, "dead_letter", "Replay", "so the payer is charged once")
    await settle_all(tenant)
    await shows(page, "succeeded")


async def test_a_payment_is_captured_in_part_at_its_processor(
    page: Page, tenant, api: Api, stripe: SandboxStripe, tmp_path: Path
):
    await configure(tenant, "stripe", capture="manual")
    payment = await api.pay(paymentMethod="pm_card_visa")
    await settle_due()
    [intent] = stripe.all("payment_intent")
    where, key = (
        f"{stripe.url}/v1/payment_intents/{intent['id']}/capture",
        {"Authorization": f"Bearer {stripe.secret_key}"},
    )
    async with aiohttp.request("POST", where, data={"amount_to_capture": 1200}, headers=key) as answer:
        assert answer.status == 200
    async with database.own_connection():
        await lifecycle.look_again(tenant_id=tenant.pk, correlation_ids=[UUID(payment["correlationId"])])
    await settle_due()
    await opened(page, tenant, payment)

    await says(page, "partly_captured", "stripe captured R$12.00 of R$19.90.", "The payer was charged R$12.00.")
    await says(page, "partly_captured", f"Look for {intent['id']} in the books of stripe")
    await looks_right(page, "partly-captured", tmp_path, BRIEFLY)
    await act(page, "partly_captured", "Close", "The payer stays charged what stripe captured")
    await says(page, "closed", "The payer was charged another amount than R$19.90")


async def test_a_declined_payment_says_why_in_words(
    page: Page, tenant, api: Api, stripe: SandboxStripe, tmp_path: Path
):
    payment = await api.pay(
        paymentMethod="pm_card_chargeDeclinedInsufficientFunds", returnUrl="https://shop.example/orders/7"
    )
    await settle_due()
    await opened(page, tenant, payment)

    await says(page, "failed", "Declined at stripe: the account has not enough money.", "No money has moved.")
    await expect(banner(page, "failed").get_by_role("link")).to_have_count(0)
    await looks_right(page, "failed", tmp_path, BRIEFLY)
    await to_payer(page, payment, "The payment failed.", "You have not been charged. You can try again in the shop.")
    await expect(page.get_by_role("link", name="Back to the shop")).to_have_attribute(
        "href", "https://shop.example/orders/7"
    )
    await looks_right(page, "payer-failed", tmp_path, BRIEFLY)


# -- After it succeeded ------------------------------------------------------------------------------------------


async def paid(api: Api, tenant, **fields: Any) -> dict[str, Any]:
    payment = await api.pay("19.90", **fields)
    await settle_all(tenant)
    return payment


async def test_a_payment_is_refunded_in_part_and_then_in_full(page: Page, tenant, api: Api, tmp_path: Path):
    payment = await paid(api, tenant)
    await ask(api, payment["correlationId"], {"amount": "5.00"})
    await pay_back(UUID(payment["correlationId"]), "returned")
    await opened(page, tenant, payment)

    await shows(page, "partly refunded")
    await says(
        page, "partly_refunded", "R$5.00 of R$19.90 was refunded.", "R$14.90 stays yours, less the fee of R$1.00."
    )
    await looks_right(page, "partly-refunded", tmp_path, BRIEFLY)
    await to_payer(page, payment, "partly refunded", "R$5.00 of it was refunded.")
    await opened(page, tenant, payment)
    await banner(page, "partly_refunded").get_by_role("link", name="Refund the rest").click()
    await page.get_by_label("Why").fill(WHY)
    await page.get_by_role("button", name="Refund").click()
    await says(page, "refunding", "A refund of R$14.90 is in progress at default.")
    await pay_back(UUID(payment["correlationId"]), "returned")
    await shows(page, "refunded")
    await says(page, "refunded", "All of R$19.90 was refunded.", "The fee of R$1.00 is not given back.")
    await looks_right(page, "refunded", tmp_path, BRIEFLY)
    await to_payer(page, payment, "It was refunded in full.")


async def test_a_refund_that_the_processor_declined(page: Page, tenant, api: Api, tmp_path: Path):
    payment = await paid(api, tenant)
    await configure(tenant, "default", refundDecline=1)
    await ask(api, payment["correlationId"])
    await pay_back(UUID(payment["correlationId"]), "failed")
    await opened(page, tenant, payment)

    await says(page, "refund_failed", "default did not refund R$19.90: the processor declined it without a reason.")
    await says(page, "refund_failed", "The payer has not got the R$19.90 back; it is in your balance again.")
    await looks_right(page, "refund-failed", tmp_path, BRIEFLY)
    await configure(tenant, "default", refundDecline=0)
    await banner(page, "refund_failed").get_by_role("link", name="Refund again").click()
    await page.get_by_label("Why").fill(WHY)
    await page.get_by_role("button", name="Refund").click()
    await pay_back(UUID(payment["correlationId"]), "returned", "failed")
    await shows(page, "refunded")
    await expect(banner(page, "refund_failed")).to_have_count(0)


async def test_a_refund_that_was_given_up(page: Page, tenant, api: Api, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(refund_decisions, "MAX_ATTEMPTS", 2)
    monkeypatch.setattr(refund_decisions, "GIVE_UP_AFTER", timedelta(0))
    payment = await paid(api, tenant)
    await configure(tenant, "default", refundFailing=True)
    await ask(api, payment["correlationId"])
    await eventually(lambda: refund_stopped(UUID(payment["correlationId"])))
    await opened(page, tenant, payment)

    await says(page, "refund_failed", "The refund of R$19.90 was given up after 2 attempts: HTTP 500.")
    await says(page, "refund_failed", "The payer has not got the R$19.90 back; default certainly did not refund it.")
    await looks_right(page, "refund-given-up", tmp_path, BRIEFLY)
    await configure(tenant, "default", refundFailing=False)
    await act(page, "refund_failed", "Retry refund", "The payer gets the money back once.")
    await pay_back(UUID(payment["correlationId"]), "returned")
    await shows(page, "refunded")


async def refund_stopped(payment: UUID) -> bool:
    async with working(RefundWork()) as work:
        await settle_due(work)
    await skip_refund_pauses(payment)
    return all(one.stopped for one in await refunds_of(payment))


async def test_a_dispute_has_a_due_date_and_is_answered_at_its_processor(
    page: Page, tenant, api: Api, stripe: SandboxStripe, tmp_path: Path
):
    payment = await paid(api, tenant, paymentMethod="pm_card_visa")
    async with hearing():
        [charge] = stripe.all("charge")
        dispute = await stripe.disputes(charge["id"], reason="product_not_received")
        await opened(page, tenant, payment)

        await shows(page, "disputed")
        due = datetime.fromtimestamp(dispute["evidence_details"]["due_by"], UTC)
        await says(page, "disputed", "The payer's bank disputes R$19.90 (product not received) and waits for evidence.")
        await says(page, "disputed", "R$19.90 is withheld until the bank decides. Do not refund it")
        await says(page, "disputed", f"Evidence due {due:%a %Y-%m-%d %H:%M} UTC")
        await looks_right(page, "disputed", tmp_path, BRIEFLY)
        await banner(page, "disputed").get_by_role("link", name="Open the dispute at stripe").click()
        await page.get_by_role("button", name="Submit winning evidence").click()
        await expect(page.locator("main")).to_contain_text("won")
        await opened(page, tenant, payment)
        await shows(page, "succeeded")
    await expect(banner(page, "disputed")).to_have_count(0)


async def test_a_lost_dispute_stays_visible(page: Page, tenant, api: Api, stripe: SandboxStripe, tmp_path: Path):
    payment = await paid(api, tenant, paymentMethod="pm_card_visa")
    await opened(page, tenant, payment)
    async with hearing():
        [charge] = stripe.all("charge")
        dispute = await stripe.disputes(charge["id"])
        await shows(page, "disputed")
        await stripe.decides(dispute["id"], won=False)
        await shows(page, "dispute lost")

    await says(page, "dispute_lost", "The dispute of R$19.90 (fraudulent) was lost.", "do not refund that as well")
    await to_payer(page, payment, "The payment succeeded.")


# -- Discrepancies -------------------------------------------------------------------------------------------------


async def their_amount(processor: Processor, amount: int) -> None:
    """Another amount in the processor's own books."""
    await database.fetch(
        "UPDATE payments_sandboxbooking SET amount = %s WHERE processor_id = %s", [amount, processor.pk]
    )


async def test_a_discrepancy_with_the_processors_books(page: Page, tenant, api: Api, tmp_path: Path):
    payment = await paid(api, tenant)
    default = await in_thread(Processor.objects.get, tenant=tenant, name="default")
    await their_amount(default, 990)
    now = datetime.now(UTC)
    await reconcile(await account(tenant), Window(now - timedelta(minutes=5), now + timedelta(seconds=1)))
    await opened(page, tenant, payment)

    await says(page, "discrepancy", "default booked R$9.90; here it is R$19.90.")
    await says(page, "discrepancy", "The payer was charged what the processor booked.")
    await looks_right(page, "discrepancy", tmp_path, BRIEFLY)
    await their_amount(default, 1990)
    await act(page, "discrepancy", "Re-check", "If its books and yours agree now, the discrepancy is closed.")
    await expect(banner(page, "discrepancy")).to_have_count(0)
    await shows(page, "succeeded")


# -- Who may act -----------------------------------------------------------------------------------------------------


async def test_a_viewer_sees_what_happened_and_no_action(
    page: Page, server: str, tenant, api: Api, stripe: SandboxStripe
):
    payment = await api.pay(paymentMethod="pm_card_threeDSecure2Required")
    await settle_due()
    viewer = await in_thread(lambda: session_of(make_person(tenant=tenant, role="viewer")))
    await page.context.add_cookies([{"name": "sessionid", "value": viewer, "url": server}])
    await opened(page, tenant, payment)

    await says(page, "requires_action", "The payer has to confirm it at the bank.")
    await expect(banner(page, "requires_action").get_by_role("link")).to_have_count(0)


async def test_a_members_page_is_live_without_a_websocket_too(page: Page, tenant, api: Api):
    await hurry(page)
    await page.add_init_script("window.line.blocked = true")
    payment = await api.pay()
    await page.goto(f"/payments/{payment['correlationId']}/live?tenant={tenant.slug}")
    await expect(page.locator("[data-live=polling]")).to_be_visible()

    await settle_until(tenant, lambda: is_settled(api, payment))

    await shows(page, "succeeded")


async def is_settled(api: Api, payment: dict[str, Any]) -> bool:
    return (await api.status(payment["correlationId"]))["status"] == "succeeded"
