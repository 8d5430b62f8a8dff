"""docs/developers/test-cards.md: every test card, amount and option of a test processor has the result that the page says."""

import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from payments.models import Dispute
from payments.processors import sandbox as sandbox_processor
from payments.processors.options import OPTIONS
from payments.processors.sandbox_behaviours import BEHAVIOURS
from payments.refunds.work import RefundWork
from registry.models import Tenant
from sandbox.cards import CARDS
from tests.bed.stripe import SandboxStripe, sandbox_stripe
from tests.conftest import Api, at_work, eventually
from tests.factories import in_thread, make_processor, make_stripe
from tests.payments.refunding import ask, draining, hearing, pay_back

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "developers" / "test-cards.md").read_text()
AT_REST = ("succeeded", "failed", "requires_action")


def table(first: str) -> list[list[str]]:
    """The rows of the table whose first heading is `first`."""
    [body] = re.findall(rf"^\| {first} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.M)
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in body.splitlines()]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


CARD_ROWS = {
    card: (*names(row[1]), *names(row[2]), row[3] if len(row) > 3 else "")
    for row in table("card")
    for card in names(row[0])
}
CODES = {name: names(code) for row in table("option") for name in names(row[0]) for code in [row[2]]}


def test_every_card_and_option_and_behaviour_is_on_the_page():
    assert set(CARD_ROWS) == set(CARDS)
    assert set(CODES) == {option.name for option in OPTIONS if option.kinds == {"sandbox"}}
    assert {names(row[0])[0]: row[1] for row in table("switch on the home page")} == {
        one.word: one.effect for one in BEHAVIOURS.values()
    }


@pytest.mark.parametrize("card", CARD_ROWS)
async def test_a_payment_with_that_card_becomes_what_the_page_says(card: str, server: str, api: Api, tenant):
    becomes, code, later = CARD_ROWS[card]
    async with sandbox_stripe() as stripe, at_work(), draining(RefundWork()), hearing():
        await in_thread(make_stripe, tenant, stripe.url)
        stripe.calls(f"{server}/webhooks/stripe/{tenant.slug}.stripe")

        payment = (await api.pay("42.00", processor="stripe", paymentMethod=card))["correlationId"]
        await api.until(payment, *AT_REST)
        found = await api.detail(payment)

        assert (found["status"], found["attempts"][-1]["code"]) == (becomes, code)
        if becomes == "requires_action":
            [intent] = stripe.all("payment_intent")
            await stripe.authenticates(intent["id"], passed=True)
            assert (await api.until(payment, "succeeded", "failed"))["status"] == names(later)[0]
        if "dispute" in later:
            assert await eventually(lambda: disputes_of(tenant)) == names(later)
        if "refunds" in later:
            await refund_passes(api, payment, stripe, *names(later))


async def disputes_of(tenant: Tenant) -> list[str]:
    """Reasons of the tenant's disputes."""
    return await in_thread(lambda: list(Dispute.objects.filter(tenant_id=tenant.pk).values_list("reason", flat=True)))


async def refund_passes(api: Api, payment: str, stripe: SandboxStripe, first: str, last: str) -> None:
    """A refund of the payment is `first` after the processor's answer, and `last` in the end."""
    status, made, _ = await ask(api, payment, {"amount": "1.00"})
    assert status == 202, made

    async def state(*, answered: bool = False) -> str:
        async with api.get(f"/payments/{payment}/refunds/{made['id']}") as response:
            found = await response.json()
        return found["status"] if found["reference"] or not answered else ""

    assert await eventually(lambda: state(answered=True)) == first
    [refund] = stripe.all("refund")
    await {"returned": stripe.completes_refund, "failed": stripe.fails_refund}[last](refund["id"])

    async def ended() -> bool:
        return await state() == last

    await eventually(ended)


# -- Amounts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("amount", "currency"), [("0", "BRL"), ("-1", "BRL"), ("19.999", "BRL"), ("19.90", "JPY")])
async def test_an_amount_that_cannot_be_is_refused_at_once(amount: str, currency: str, api: Api):
    async with api.post("/payments", json={"amount": amount, "currency": currency}) as response:
        found = await response.json(content_type=None)

    assert (response.status, [one["field"] for one in found["errors"]]) == (422, ["amount"])
    assert f"`{amount}`" in PAGE


@pytest.mark.parametrize("row", [row for row in table("amount") if "Stripe" in row[0]], ids=lambda row: row[0])
async def test_an_amount_that_stripe_does_not_charge_fails_with_its_code(row: list[str], api: Api, tenant):
    [amount], code = names(row[0]), names(row[1])[-1]
    async with sandbox_stripe() as stripe, at_work():
        await in_thread(make_stripe, tenant, stripe.url)

        made = await api.pay(amount, processor="stripe", paymentMethod="pm_card_visa")
        await api.until(made["correlationId"], "failed")

        assert (await api.detail(made["correlationId"]))["attempts"][-1]["code"] == code


# -- Test processors -------------------------------------------------------------------------------------------

VALUES: dict[str, Any] = {"delay": 30, "decline": 1, "refundDecline": 1}  # others are switches


@pytest.mark.parametrize("option", CODES)
async def test_an_option_of_a_test_processor_has_that_code(option: str, api: Api, tenant, monkeypatch):
    monkeypatch.setattr(sandbox_processor, "ANSWER_TIMEOUT", 0.3)
    await in_thread(make_processor, tenant, options={option: VALUES.get(option, True)})
    expected = CODES[option]

    async with at_work():
        payment = (await api.pay())["correlationId"]
        if option == "failing":
            await api.until(payment, "queued")
            found = await eventually(lambda: tried(api, payment))
        else:
            await api.until(payment, "failed" if option == "decline" else "succeeded")
            found = await tried(api, payment)

    if option.startswith("refund"):
        await ask(api, payment, {"amount": "1.00"})
        wanted = {"refundDecline": "failed", "refundHang": "returned", "refundFailing": "owed"}[option]
        [refund] = await pay_back(UUID(payment), wanted)
        assert [refund.code] == expected or option == "refundHang"
    else:
        assert found[: len(expected)] == expected


async def tried(api: Api, payment: str) -> list[str]:
    """Codes of the attempts that have ended."""
    return [one["code"] for one in (await api.detail(payment))["attempts"] if one["code"]]
