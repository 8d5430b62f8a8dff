"""Refunds: accepted as owed, returned once by a worker, never more than was paid, in ledger and timeline."""

import asyncio
from uuid import uuid4

import pytest

from payments.api import prefer
from payments.books import ledger
from payments.errors import RefundTooLarge
from payments.processors import sandbox as sandbox_kind
from payments.refunds import refunds
from tests.conftest import Api, eventually
from tests.factories import in_thread, make_payment, make_processor
from tests.payments.refunding import (
    ask,
    booked,
    given_back,
    kinds,
    lines,
    pay_back,
    paying_back,
    refunds_of,
    sums,
    until_all,
)
from tests.settling import accept, configure


@pytest.fixture
async def sandbox(tenant):
    return await in_thread(make_processor, tenant, "sandbox", fee="0.05")


@pytest.fixture
async def payment(tenant, sandbox):
    """A payment of 10.00 that has succeeded."""
    [one] = await booked(tenant)
    return one


# -- One refund ------------------------------------------------------------------------------------------------


async def test_a_refund_is_owed_at_once_and_returned_by_a_worker(tenant, payment):
    await refunds.refund(tenant_id=tenant.pk, correlation_id=payment, amount=300)
    [owed] = await refunds_of(payment)
    before = await sums(payment)

    [returned] = await pay_back(payment, "returned")

    assert (owed.status, owed.requested_at, before) == ("owed", None, (300, 0))
    assert returned.requested_at is not None
    assert (returned.attempt, returned.reference) == (1, f"sandbox-{returned.public_id}")
    assert (await given_back(payment), await sums(payment)) == ([300], (300, 300))


async def test_the_two_ledger_lines_of_a_refund_add_up_to_zero_and_reduce_the_balance(tenant, payment):
    before = await ledger.balance(tenant_id=tenant.pk)
    await refunds.refund(tenant_id=tenant.pk, correlation_id=payment, amount=300)
    await pay_back(payment, "returned")

    after = await ledger.balance(tenant_id=tenant.pk)

    assert await lines(payment) == [("balance", 300), ("processor", -300)]
    assert (before, after) == ({"BRL": 950}, {"BRL": 650})


async def test_without_an_amount_the_remaining_amount_is_refunded(tenant, payment):
    await refunds.refund(tenant_id=tenant.pk, correlation_id=payment, amount=300)
    await refunds.refund(tenant_id=tenant.pk, correlation_id=payment)

    await pay_back(payment, "returned")

    assert await given_back(payment) == [300, 700]
    assert await sums(payment) == (1000, 1000)


async def test_each_step_is_an_event_of_the_payment(tenant, payment):
    await refunds.refund(tenant_id=tenant.pk, correlation_id=payment, amount=300)
    await pay_back(payment, "returned")

    assert await kinds(payment) == ["refund.created", "refund.returned"]


async def test_a_declined_refund_releases_its_amount(tenant, payment):
    await configure(tenant, "sandbox", refundDecline=1.0)
    await refunds.refund(tenant_id=tenant.pk, correlation_id=payment)

    [failed] = await pay_back(payment, "failed")

    assert failed.code == "refund_declined"
    assert (await sums(payment), await given_back(payment), await lines(payment)) == ((0, 0), [], [])
    assert await kinds(payment) == ["refund.created", "refund.failed"]


async def test_an_amount_above_the_rest_is_refused_with_the_rest(tenant, payment):
    await refunds.refund(tenant_id=tenant.pk, correlation_id=payment, amount=300)

    with pytest.raises(RefundTooLarge, match=r"at most 7\.00 BRL is left"):
        await refunds.refund(tenant_id=tenant.pk, correlation_id=payment, amount=701)
    await refunds.refund(tenant_id=tenant.pk, correlation_id=payment, amount=700)
    with pytest.raises(RefundTooLarge, match="already"):
        await refunds.refund(tenant_id=tenant.pk, correlation_id=payment)

    assert [one.amount for one in await refunds_of(payment)] == [300, 700]


# -- Trouble on the way ----------------------------------------------------------------------------------------


async def test_while_the_processor_fails_a_refund_waits_and_is_returned_once_it_recovers(tenant, quick, payment):
    await configure(tenant, "sandbox", refundFailing=True)
    await refunds.refund(tenant_id=tenant.pk, correlation_id=payment)
    async with paying_back():
        waiting = await _tried(payment, 2)
        await configure(tenant, "sandbox", refundFailing=False)
        [returned] = await until_all(payment, "returned")

    assert waiting.code == "http_500"
    assert returned.requested_at == waiting.requested_at
    assert await given_back(payment) == [1000]


async def _tried(payment, times: int):
    async def reached():
        [one] = await refunds_of(payment)
        return one if one.attempt >= times and one.status == "owed" else None

    return await eventually(reached)


async def test_a_refund_without_a_response_is_looked_up_and_not_returned_again(tenant, payment, monkeypatch):
    monkeypatch.setattr(sandbox_kind, "ANSWER_TIMEOUT", 0.2)
    await configure(tenant, "sandbox", refundHang=True)
    await refunds.refund(tenant_id=tenant.pk, correlation_id=payment)

    await pay_back(payment, "uncertain")
    [returned] = await pay_back(payment, "returned")

    assert returned.attempt == 2
    assert (await given_back(payment), await sums(payment)) == ([1000], (1000, 1000))


# -- Many at once ----------------------------------------------------------------------------------------------


async def test_of_fifty_concurrent_full_refunds_one_is_accepted(tenant, payment):
    outcomes = await asyncio.gather(
        *(refunds.refund(tenant_id=tenant.pk, correlation_id=payment, amount=1000) for _ in range(50)),
        return_exceptions=True,
    )

    assert [type(o) for o in outcomes].count(RefundTooLarge) == 49
    assert await sums(payment) == (1000, 0)
    assert len(await refunds_of(payment)) == 1


async def test_of_fifty_concurrent_partial_refunds_no_more_are_accepted_than_fit(tenant, payment):
    outcomes = await asyncio.gather(
        *(refunds.refund(tenant_id=tenant.pk, correlation_id=payment, amount=70) for _ in range(50)),
        return_exceptions=True,
    )

    owed = [one.amount for one in await refunds_of(payment)]
    assert (len(owed), sum(owed)) == (14, 980)
    assert [type(o) for o in outcomes].count(RefundTooLarge) == 36
    assert [one.number for one in await refunds_of(payment)] == list(range(1, 15))


async def test_concurrent_requests_with_one_key_are_one_refund(tenant, payment):
    receipts = await asyncio.gather(
        *(
            refunds.refund(tenant_id=tenant.pk, correlation_id=payment, amount=10, idempotency_key="k")
            for _ in range(20)
        )
    )

    assert len({r.refund_id for r in receipts}) == 1
    assert sorted(r.replayed for r in receipts) == [False] + [True] * 19
    assert await sums(payment) == (10, 0)


# -- Over HTTP -------------------------------------------------------------------------------------------------


async def test_a_refund_request_returns_202_with_the_refund_and_its_address(api: Api, payment):
    status, said, headers = await ask(api, payment, {"amount": "3.00", "reason": "too large"})

    assert status == 202
    assert (said["status"], said["amount"], said["currency"], said["reason"]) == ("owed", "3.00", "BRL", "too large")
    assert said["createdAt"].endswith("Z")
    assert headers["Location"] == said["statusUrl"]
    assert said["statusUrl"].endswith(f"/payments/{payment}/refunds/{said['id']}")


async def test_a_caller_that_waits_gets_the_returned_refund(api: Api, payment):
    async with paying_back():
        status, said, headers = await ask(api, payment, Prefer="wait=5")

    assert (status, said["status"], headers["Preference-Applied"]) == (200, "returned", "wait=5")


async def test_a_caller_that_waits_too_short_gets_the_owed_refund(api: Api, payment, monkeypatch):
    monkeypatch.setattr(prefer, "LONGEST_WAIT", 0.1)
    status, said, headers = await ask(api, payment, Prefer="wait=1")

    assert (status, said["status"], headers["Preference-Applied"]) == (202, "owed", "respond-async")


async def test_the_address_of_a_refund_and_the_list_show_its_state(api: Api, payment):
    _, first, _ = await ask(api, payment, {"amount": "3.00"})
    _, second, _ = await ask(api, payment, {"amount": "4.00"})
    await pay_back(payment, "returned")

    async with api.get(f"/payments/{payment}/refunds/{first['id']}") as response:
        one = await response.json()
    async with api.get(f"/payments/{payment}/refunds") as response:
        listed = await response.json()

    assert one["status"] == "returned"
    assert [item["id"] for item in listed["items"]] == [first["id"], second["id"]]


async def test_the_payment_shows_the_refunded_amount_and_time(api: Api, payment):
    await ask(api, payment, {"amount": "3.00"})
    await pay_back(payment, "returned")

    detail = await api.detail(str(payment))

    assert (detail["status"], detail["refunded"]) == ("succeeded", "3.00")
    told = [(step["kind"], step["detail"]) for step in detail["timeline"] if "kind" in step]
    assert told == [
        ("refund.created", "Refund of 3.00 BRL requested"),
        ("refund.returned", "Refunded at sandbox"),
    ]


async def test_the_same_key_and_content_replay_and_other_content_conflicts(api: Api, payment):
    _, first, _ = await ask(api, payment, {"amount": "3.00"}, **{"Idempotency-Key": "k1"})

    status, again, headers = await ask(api, payment, {"amount": "3.00"}, **{"Idempotency-Key": "k1"})
    conflict, _, _ = await ask(api, payment, {"amount": "4.00"}, **{"Idempotency-Key": "k1"})

    assert (status, again["id"], headers["Idempotent-Replayed"]) == (202, first["id"], "true")
    assert conflict == 409
    assert await sums(payment) == (300, 0)


async def test_one_idempotency_key_belongs_to_one_payment(api: Api, tenant, sandbox):
    one, other = await booked(tenant, 2)
    await ask(api, one, **{"Idempotency-Key": "k1"})

    status, said, _ = await ask(api, other, **{"Idempotency-Key": "k1"})

    assert (status, "other content" in said["detail"]) == (409, True)
    assert await refunds_of(other) == []


BAD = {
    "zero": ({"amount": 0}, 422, "amount"),
    "negative": ({"amount": "-1.00"}, 422, "amount"),
    "three decimals": ({"amount": "1.001"}, 422, "amount"),
    "not a number": ({"amount": "NaN"}, 422, "amount"),
    "a word": ({"amount": "all"}, 422, "amount"),
    "another currency": ({"amount": "1.00", "currency": "USD"}, 422, "currency"),
    "an unknown field": ({"amount": "1.00", "ammount": "1.00"}, 422, "ammount"),
    "a reason that is no text": ({"reason": 7}, 422, "reason"),
    "a long reason": ({"reason": "x" * 501}, 422, "reason"),
    "a card's number": ({"reason": "paid with 4242 4242 4242 4242 12/27 123"}, 422, "reason"),
    "NUL": ({"reason": "a\0b"}, 422, "reason"),
    "no object": ([], 422, "body"),
}


@pytest.mark.parametrize("case", BAD)
async def test_invalid_fields_of_a_refund_are_named(api: Api, payment, case):
    body, expected, field = BAD[case]

    status, said, _ = await ask(api, payment, body)

    assert status == expected
    assert field in [fault["field"] for fault in said["errors"]]
    assert await refunds_of(payment) == []


async def test_an_amount_above_the_rest_is_409(api: Api, payment):
    status, said, _ = await ask(api, payment, {"amount": "10.01"})

    assert (status, said["detail"]) == (409, "at most 10.00 BRL is left to refund")


@pytest.mark.parametrize("status", ["queued", "processing", "uncertain", "requires_action", "failed", "canceled"])
async def test_only_a_payment_that_succeeded_can_be_refunded(api: Api, tenant, sandbox, status):
    row = await in_thread(make_payment, tenant, status=status, processor=sandbox)

    answer, said, _ = await ask(api, row.correlation_id)

    assert (answer, said["detail"]) == (409, f"it is {status}; only a payment that succeeded can be refunded")


async def test_a_processor_without_refunds_is_reported(api: Api, tenant, default):
    [one] = await booked(tenant)

    status, said, _ = await ask(api, one)

    assert (status, said["detail"]) == (
        409,
        "it was booked at default, and processors of kind http support no refunds",
    )


async def test_unknown_and_foreign_payments_and_refunds_are_not_found(api: Api, stranger: Api, payment):
    _, mine, _ = await ask(api, payment, {"amount": "1.00"})
    paths = [f"/payments/{payment}/refunds", f"/payments/{payment}/refunds/{mine['id']}"]

    foreign = [(await stranger.get(path)).status for path in paths]
    unknown = [
        (await api.get(path)).status
        for path in (f"/payments/{uuid4()}/refunds", f"/payments/{payment}/refunds/{uuid4()}", f"{paths[0]}/x")
    ]
    asked = [(await ask(client, one))[0] for client, one in ((stranger, payment), (api, uuid4()), (api, "x"))]

    assert (foreign, unknown, asked) == ([404, 404], [404, 404, 404], [404, 404, 404])


async def test_a_payment_without_refunds_has_an_empty_list(api: Api, tenant):
    [one] = await accept(tenant)

    async with api.get(f"/payments/{one}/refunds") as response:
        assert (response.status, await response.json()) == (200, {"items": []})
