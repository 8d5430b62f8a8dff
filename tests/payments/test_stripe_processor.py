"""The processor of kind stripe against a Stripe in trouble: the outcome of each response."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import msgspec
import pytest

from payments.errors import AmountRefused
from payments.processors.base import Account, Order, Outcome, RefundOrder, Result
from payments.processors.stripe import processor as kind
from payments.processors.stripe.amounts import from_stripe, to_stripe
from payments.processors.stripe.processor import StripeProcessor
from registry.tenants.encryption import seal
from tests.bed.stripe import SandboxStripe, sandbox_stripe

CREATE = "POST /v1/payment_intents"
SECURE, DECLINED = "pm_card_threeDSecure2Required", "pm_card_chargeDeclined"


@pytest.fixture
async def stripe() -> AsyncIterator[SandboxStripe]:
    async with sandbox_stripe() as sandbox:
        yield sandbox


@pytest.fixture
async def processor() -> AsyncIterator[StripeProcessor]:
    async with StripeProcessor() as one:
        yield one


def account(
    stripe: SandboxStripe,
    *,
    key: str = "sk_test_bed",
    url: str | None = None,
    number: int = 7,
    tenant: int = 1,
    **options: Any,
) -> Account:
    return Account(
        id=number,
        tenant_id=tenant,
        name="stripe",
        kind="stripe",
        url=stripe.url if url is None else url,
        fee_ppm=50_000,
        options=options,
        enabled=True,
        endpoint="e",
        sealed=seal({"secretKey": key}, place=f"processor {number}"),
    )


def order(card: str = "", **fields: Any) -> Order:
    now = datetime.now(UTC)
    method = {**({"paymentMethod": card} if card else {}), **fields.pop("method", {})}
    return Order(
        **{
            "correlation_id": uuid4(),
            "tenant_id": 1,
            "amount": 1990,
            "currency": "BRL",
            "requested_at": now.replace(microsecond=now.microsecond // 1000 * 1000),
            "method": method or None,
            **fields,
        }
    )


def said(outcome: Outcome) -> tuple[str, str]:
    return outcome.result.value, outcome.code


# -- Sends ---------------------------------------------------------------------------------------------------


async def test_an_unknown_key_is_an_outage_and_not_an_error_of_the_payment(stripe, processor):
    outcome = await processor.send(order("pm_card_visa"), account(stripe, key="sk_test_other"))

    assert (outcome.result, outcome.outage, outcome.turned_away) == (Result.NOT_BOOKED, True, True)
    assert outcome.healthy  # others' keys are as good as before


async def test_a_refused_connection_means_that_nothing_was_booked(stripe, processor):
    outcome = await processor.send(order("pm_card_visa"), account(stripe, url="http://127.0.0.1:9"))

    assert (said(outcome), outcome.outage) == (("not_booked", "no_connection"), True)


async def test_a_live_key_is_never_used_outside_production(stripe, processor):
    outcome = await processor.send(order("pm_card_visa"), account(stripe, key="sk_live_bed"))

    assert said(outcome) == ("not_booked", "live_key_refused")
    assert stripe.received() == []


async def test_a_live_key_is_never_sent_to_another_host(stripe, processor, settings):
    settings.PRODUCTION = True
    live = msgspec.structs.replace(account(stripe, key="sk_live_bed"), mode="live")

    outcome = await processor.send(order("pm_card_visa"), live)

    assert said(outcome) == ("not_booked", "live_key_refused")
    assert stripe.received() == []


@pytest.mark.parametrize(
    ("trouble", "proved"),
    [
        ("rate_limit", ("not_booked", "rate_limit")),
        ("error_before", ("unknown", "http_500")),
        ("drop_before", ("unknown", "ServerDisconnectedError")),
        ("drop_after", ("unknown", "ServerDisconnectedError")),
    ],
)
async def test_each_kind_of_trouble_has_its_outcome(stripe, processor, trouble, proved):
    stripe.fails(trouble, on=CREATE)

    outcome = await processor.send(order("pm_card_visa"), account(stripe))

    assert said(outcome) == proved
    assert not outcome.healthy


async def test_a_method_that_does_not_exist_is_a_decline_that_names_no_secret(stripe, processor):
    outcome = await processor.send(order("pm_no_such_thing"), account(stripe))

    assert said(outcome) == ("declined", "resource_missing")


async def test_after_a_replayed_response_the_intent_is_read(stripe, processor):
    mine = order(SECURE)
    first = await processor.send(mine, account(stripe))
    await stripe.authenticates(first.reference)

    again = await processor.send(mine, account(stripe))

    assert (first.result, again.result) == (Result.REQUIRES_ACTION, Result.BOOKED)
    assert len(stripe.all("payment_intent")) == 1


async def test_a_500_stored_under_a_key_proves_nothing_and_its_replays_do_not_count_as_failures(stripe, processor):
    stripe.fails("error_kept", on=CREATE, times=1)
    mine = order("pm_card_visa")

    first, again = [await processor.send(mine, account(stripe)) for _ in range(2)]

    assert (said(first), first.healthy) == (("unknown", "http_500"), False)
    assert (said(again), again.healthy) == (("not_booked", "replayed_error"), True)
    assert stripe.all("payment_intent") == []


async def test_an_error_after_the_intent_was_created_leaves_the_outcome_unknown(stripe, processor):
    """Else a payment whose declined intent could not be canceled yet would be sent again, to a second one."""
    stripe.fails("rate_limit", on="*/cancel", times=1)
    mine = order(DECLINED)

    outcome = await processor.send(mine, account(stripe))
    later = await processor.look_up(msgspec.structs.replace(mine, reference=outcome.reference), account(stripe))

    assert (outcome.result, outcome.reference) == (Result.UNKNOWN, stripe.all("payment_intent")[0]["id"])
    assert said(later) == ("declined", "generic_decline")


async def test_an_expired_idempotency_key_is_not_used_again(stripe, processor):
    outcome = await processor.send(
        order("pm_card_visa", requested_at=datetime.now(UTC) - timedelta(days=1)), account(stripe)
    )

    assert (said(outcome), outcome.healthy) == (("not_booked", "key_forgotten"), True)
    assert stripe.received() == []


async def test_off_session_a_saved_card_is_charged_and_one_that_requires_authentication_is_declined(stripe, processor):
    charged = await processor.send(order("pm_card_visa", method={"offSession": True}), account(stripe))
    asked = await processor.send(order(SECURE, method={"offSession": True}), account(stripe))

    assert said(charged) == ("booked", "succeeded")
    assert said(asked) == ("declined", "authentication_required")


async def test_a_required_action_has_the_data_that_the_page_needs(stripe, processor):
    outcome = await processor.send(order(SECURE), account(stripe, publishableKey="pk_test_bed"))

    [intent] = stripe.all("payment_intent")
    assert outcome.action == {
        "type": "authenticate",
        "intent": intent["id"],
        "clientSecret": intent["client_secret"],
        "publishableKey": "pk_test_bed",
        "url": stripe.url,
        "needs": "authentication",
    }


async def test_a_payer_without_a_method_may_try_one_card_after_the_other(stripe, processor):
    mine = order()
    first = await processor.send(mine, account(stripe))
    refused = await enters(stripe, first.reference, DECLINED)

    later = await processor.look_up(msgspec.structs.replace(mine, reference=first.reference), account(stripe))

    assert refused == 402
    assert (said(first), said(later)) == (("requires_action", "requires_payment_method"),) * 2


async def enters(stripe: SandboxStripe, intent: str, card: str) -> int:
    """The payer's browser confirms with a card, as Stripe.js does; the answer's status."""
    secret = stripe[intent]["client_secret"]
    data = {"payment_method": card, "client_secret": secret, "use_stripe_sdk": "true"}
    key = {"Authorization": "Bearer pk_test_bed"}
    async with aiohttp.request(
        "POST", f"{stripe.url}/v1/payment_intents/{intent}/confirm", data=data, headers=key
    ) as got:
        return got.status


# -- Looking up ----------------------------------------------------------------------------------------------


async def test_an_intent_that_was_never_created_is_not_there_yet(stripe, processor):
    assert said(await processor.look_up(order("pm_card_visa"), account(stripe))) == ("not_booked", "not_there_yet")


@pytest.mark.parametrize("known", ["pi_mine", ""], ids=["by its id", "in the list"])
@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        ({"trouble": "rate_limit"}, "rate_limit"),
        ({"trouble": "refuse", "status": 400}, "invalid_request"),
        ({"trouble": "refuse", "status": 401}, "http_401"),
        ({"trouble": "refuse", "status": 403}, "http_403"),
        ({"trouble": "error_before"}, "http_500"),
        ({"trouble": "drop_before"}, "ServerDisconnectedError"),
    ],
)
async def test_an_error_of_a_look_up_proves_nothing(stripe, processor, trouble, code, known):
    """Else "not booked" would be believed once the longest delay has passed, and the payment be sent a second time."""
    stripe.fails(**trouble)

    outcome = await processor.look_up(order("pm_card_visa", reference=known), account(stripe))

    assert (said(outcome), outcome.reference) == (("unknown", code), known)


@pytest.mark.parametrize(
    ("elsewhere", "code", "turned_away"),
    [({"url": "http://127.0.0.1:9"}, "no_connection", False), ({"key": "sk_live_bed"}, "live_key_refused", True)],
    ids=["nobody there", "no usable key"],
)
async def test_a_look_up_that_cannot_be_made_proves_nothing_and_does_not_affect_the_breaker(
    stripe, processor, elsewhere, code, turned_away
):
    outcome = await processor.look_up(order("pm_card_visa"), account(stripe, **elsewhere))

    assert said(outcome) == ("unknown", code)
    assert (outcome.healthy, outcome.turned_away, outcome.outage) == (turned_away, turned_away, True)


async def test_another_payments_intent_is_not_taken_for_ours(stripe, processor):
    await processor.send(order("pm_card_visa"), account(stripe))

    assert said(await processor.look_up(order("pm_card_visa"), account(stripe))) == ("not_booked", "not_there_yet")


async def test_an_intent_is_found_behind_many_others(stripe, processor, monkeypatch):
    mine = order("pm_card_visa")
    await processor.send(mine, account(stripe))
    await others(stripe, processor, monkeypatch)
    monkeypatch.setattr(kind, "PAGES", 5)

    assert said(await processor.look_up(mine, account(stripe))) == ("booked", "succeeded")

    assert [seen.path for seen in stripe.received("GET")] == ["/v1/payment_intents"] * 5


async def test_an_intent_behind_the_first_pages_is_searched_for(stripe, processor, monkeypatch):
    mine = order("pm_card_visa")
    await processor.send(mine, account(stripe))
    await others(stripe, processor, monkeypatch)

    outcome = await processor.look_up(mine, account(stripe))

    assert said(outcome) == ("booked", "succeeded")
    assert [seen.path for seen in stripe.received("GET")][-1] == "/v1/payment_intents/search"


async def test_an_intent_that_the_search_does_not_return_yet_is_found_further_down_the_list(
    stripe, processor, monkeypatch
):
    mine = order("pm_card_visa")
    await processor.send(mine, account(stripe))
    await others(stripe, processor, monkeypatch)
    stripe.fails("refuse", on="GET */search", status=400)

    assert said(await processor.look_up(mine, account(stripe))) == ("booked", "succeeded")


async def test_an_intent_missing_in_the_whole_list_does_not_exist(stripe, processor, monkeypatch):
    await others(stripe, processor, monkeypatch)

    assert said(await processor.look_up(order("pm_card_visa"), account(stripe))) == ("not_booked", "not_there_yet")


async def others(stripe: SandboxStripe, processor: StripeProcessor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four younger intents, where pages hold one and two of them are read before the search."""
    monkeypatch.setattr(kind, "PAGE", 1)
    monkeypatch.setattr(kind, "PAGES", 2)
    for _ in range(4):
        await processor.send(order(), account(stripe))


# -- Connect -------------------------------------------------------------------------------------------------


async def test_a_destination_gets_the_money_and_the_application_its_fee(stripe, processor):
    stripe.state.add({"id": "acct_shop", "object": "account"})

    outcome = await processor.send(
        order("pm_card_visa", amount=10_000), account(stripe, destination="acct_shop", applicationFee=0.025)
    )

    [intent] = stripe.all("payment_intent")
    assert (intent["transfer_data"]["destination"], intent["application_fee_amount"]) == ("acct_shop", 250)
    assert (outcome.result, outcome.fee) == (Result.BOOKED, 250)


@pytest.mark.parametrize(
    ("amount", "currency", "kept", "fee"),
    [
        (12_340, "KWD", 310, 310),  # 308.5 fils: the last digit is zero
        (105, "ISK", 300, 3),  # 2.625 krónur, which Stripe counts in hundredths
        (123_400, "MGA", 31, 3100),  # 30.85 ariary, which Stripe counts whole
        (1990, "BRL", 50, 50),
    ],
)
async def test_the_applications_fee_is_one_that_stripe_takes_and_the_ledger_holds(
    stripe, processor, amount, currency, kept, fee
):
    stripe.state.add({"id": "acct_shop", "object": "account"})
    connected = account(stripe, destination="acct_shop", applicationFee=0.025)

    outcome = await processor.send(order("pm_card_visa", amount=amount, currency=currency), connected)

    [intent] = stripe.all("payment_intent")
    assert (intent["application_fee_amount"], outcome.fee) == (kept, fee)


async def test_by_default_the_tenants_plan_sets_the_application_fee(stripe, processor):
    stripe.state.add({"id": "acct_shop", "object": "account"})
    connected = msgspec.structs.replace(account(stripe, destination="acct_shop"), plan_ppm=10_000)

    outcome = await processor.send(order("pm_card_visa", amount=10_000), connected)

    assert (outcome.result, outcome.fee) == (Result.BOOKED, 100)


# -- Giving back ---------------------------------------------------------------------------------------------


async def refund_order(
    stripe: SandboxStripe, processor: StripeProcessor, card: str = "pm_card_visa", **fields: Any
) -> RefundOrder:
    booked = await processor.send(order(card), account(stripe))
    return refund_order_of(booked.reference, **fields)


def refund_order_of(reference: str, **fields: Any) -> RefundOrder:
    return RefundOrder(
        **{
            "refund_id": uuid4(),
            "payment_id": uuid4(),
            "payment_reference": reference,
            "amount": 500,
            "currency": "BRL",
            "reason": "requested_by_customer",
            "requested_at": datetime.now(UTC),
            "tenant_id": 1,
            **fields,
        }
    )


async def test_a_refund_requested_twice_is_created_once(stripe, processor):
    owed = await refund_order(stripe, processor)

    first, again = [await processor.refund(owed, account(stripe)) for _ in range(2)]

    assert first == again
    assert [refund["amount"] for refund in stripe.all("refund")] == [500]


async def test_a_refund_whose_key_is_forgotten_is_looked_for_before_it_is_made_again(stripe, processor):
    owed = await refund_order(stripe, processor, requested_at=datetime.now(UTC) - timedelta(days=2))
    first = await processor.refund(owed, account(stripe))
    await stripe.puts_clock_forward(2 * 86_400)

    again = await processor.refund(owed, account(stripe))

    assert first == again
    assert len(stripe.all("refund")) == 1


async def test_a_refund_that_was_made_is_found_by_its_payment(stripe, processor):
    owed = await refund_order(stripe, processor)
    made = await processor.refund(owed, account(stripe))

    found = await processor.look_up_refund(owed, account(stripe))

    assert (said(found), found.reference) == (("booked", "succeeded"), made.reference)


async def test_a_refund_that_was_not_made_is_not_there_yet(stripe, processor):
    owed = await refund_order(stripe, processor)

    assert said(await processor.look_up_refund(owed, account(stripe))) == ("not_booked", "not_there_yet")


async def test_a_refund_takes_the_money_from_the_connected_account_and_leaves_the_applications_fee(stripe, processor):
    """The ledger's fee line stands: a fee that went back would be in no line."""
    stripe.state.add({"id": "acct_shop", "object": "account"})
    connected = account(stripe, destination="acct_shop", applicationFee=0.1)
    booked = await processor.send(order("pm_card_visa"), connected)

    await processor.refund(refund_order_of(booked.reference, amount=1990), connected)

    assert [fee["amount_refunded"] for fee in stripe.all("application_fee")] == [0]
    assert [transfer["amount_reversed"] for transfer in stripe.all("transfer")] == [1990]


async def test_more_than_was_paid_is_not_refunded(stripe, processor):
    owed = await refund_order(stripe, processor, amount=5000)

    assert (await processor.refund(owed, account(stripe))).result is Result.DECLINED


# -- Books ---------------------------------------------------------------------------------------------------


async def test_the_bookings_of_a_window_have_our_ids(stripe, processor):
    mine, unpaid = order("pm_card_visa"), order(SECURE)
    booked = await processor.send(mine, account(stripe))
    await processor.send(unpaid, account(stripe))
    at = mine.requested_at

    found = [one async for one in processor.records(account(stripe), at, at)]
    before = [
        one async for one in processor.records(account(stripe), at - timedelta(hours=1), at - timedelta(seconds=1))
    ]

    assert [(one.correlation_id, one.reference, one.amount, one.requested_at) for one in found] == [
        (mine.correlation_id, booked.reference, 1990, at)
    ]
    assert isinstance(found[0].correlation_id, UUID)
    assert before == []


OTHERS = pytest.mark.parametrize("other", [{"tenant": 2, "number": 8}, {"number": 8}], ids=["tenant", "processor"])


@OTHERS
async def test_the_bookings_exclude_those_of_another_account_with_the_same_key(stripe, processor, other):
    """A platform's tenants share its key. What is of another one must not be offered to this one as a booking to take."""
    there, mine = order("pm_card_visa", tenant_id=other.get("tenant", 1)), order("pm_card_visa")
    await processor.send(there, account(stripe, **other))
    booked = await processor.send(mine, account(stripe))

    found = [one async for one in processor.records(account(stripe), there.requested_at, mine.requested_at)]

    assert [one.reference for one in found] == [booked.reference]


async def test_the_bookings_include_payments_made_by_others(stripe, processor):
    booked = await processor.send(order("pm_card_visa"), account(stripe))
    stripe[booked.reference]["metadata"] = {}
    now = datetime.now(UTC)

    found = [
        one async for one in processor.records(account(stripe), now - timedelta(minutes=1), now + timedelta(minutes=1))
    ]

    assert [(one.reference, one.correlation_id) for one in found] == [(booked.reference, None)]


@OTHERS
async def test_an_intent_of_another_of_our_accounts_is_not_taken_for_ours(stripe, processor, other):
    mine = order("pm_card_visa")
    await processor.send(mine, account(stripe, **other))
    [intent] = stripe.all("payment_intent")
    intent["metadata"]["registry_tenant"] = str(other.get("tenant", 1))

    assert said(await processor.look_up(mine, account(stripe))) == ("not_booked", "not_there_yet")


# -- Amounts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("units", "currency", "amount"),
    [
        (1990, "BRL", 1990),
        (500, "JPY", 500),  # counted whole by both
        (5, "UGX", 500),  # whole by ISO, in hundredths by Stripe
        (5, "ISK", 500),
        (500, "MGA", 5),  # the other way round
        (1230, "KWD", 1230),  # thousandths, of which the last is zero
        (1000, "XAF", 1000),
    ],
)
def test_amounts_are_in_the_units_that_stripe_counts(units, currency, amount):
    assert to_stripe(units, currency) == amount
    assert from_stripe(amount, currency) == units


@pytest.mark.parametrize(("units", "currency"), [(1235, "KWD"), (1, "TND"), (550, "MGA")])
def test_an_amount_that_stripe_cannot_charge_exactly_is_refused(units, currency):
    with pytest.raises(AmountRefused):
        to_stripe(units, currency)


async def test_a_payment_that_cannot_be_charged_exactly_is_declined_before_anything_is_sent(stripe, processor):
    outcome = await processor.send(order("pm_card_visa", amount=1235, currency="KWD"), account(stripe))

    assert said(outcome) == ("declined", "amount_refused")
    assert stripe.received() == []


# -- Whose clients ---------------------------------------------------------------------------------------------------


async def test_each_event_loop_has_clients_of_its_own(stripe):
    """A worker's loop ends, the next one begins in the same process: a client of before would hang on a loop that is closed."""
    here = account(stripe)
    mine = order("pm_card_visa")

    async def asks() -> Outcome:
        async with StripeProcessor() as processor:
            return await processor.look_up(mine, here)

    async with StripeProcessor() as processor:
        await processor.send(mine, here)
        for _ in range(2):
            there = await asyncio.to_thread(asyncio.run, asks())
            assert there.result is Result.BOOKED
        assert (await processor.look_up(mine, here)).result is Result.BOOKED
