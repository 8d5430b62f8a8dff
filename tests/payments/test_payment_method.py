"""Payment methods are references only: validated, stored and returned; card data is refused."""

import json
import logging
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from payments.intake.intake import submit
from payments.intake.payment import NewPayment, Submission, fingerprint
from payments.intake.spilling import decode, encode
from registry.data import database
from registry.edge.cards import holds_card
from tests.conftest import Api
from tests.settling import payments

CARD = "4242424242424242"


async def post(api: Api, **fields: Any) -> tuple[int, dict, str]:
    async with api.post("/payments", json={"correlationId": str(uuid4()), "amount": "19.90", **fields}) as response:
        text = await response.text()
        return response.status, json.loads(text), text


async def test_the_ids_are_stored_and_returned(api: Api):
    payment = await api.pay(paymentMethod="pm_1Abc", customer="cus_9", offSession=True)

    told = await api.detail(payment["correlationId"])

    assert (told["paymentMethod"], told["customer"], told["offSession"]) == ("pm_1Abc", "cus_9", True)


async def test_a_payment_that_names_none_has_none(api: Api):
    payment = await api.pay()

    told = await api.detail(payment["correlationId"])

    assert (told["paymentMethod"], told["customer"], told["offSession"]) == (None, None, None)


async def test_another_method_is_other_content(api: Api):
    payment = await api.pay(paymentMethod="pm_1")

    again, _, _ = await post(api, correlationId=payment["correlationId"], paymentMethod="pm_1")
    other, _, _ = await post(api, correlationId=payment["correlationId"], paymentMethod="pm_2")
    without, _, _ = await post(api, correlationId=payment["correlationId"])

    assert (again, other, without) == (202, 409, 409)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"paymentMethod": "tok_1"}, "paymentMethod"),
        ({"paymentMethod": "pm_"}, "paymentMethod"),
        ({"paymentMethod": "pm_1; DROP"}, "paymentMethod"),
        ({"paymentMethod": "pm_" + "x" * 300}, "paymentMethod"),
        ({"paymentMethod": 7}, "paymentMethod"),
        ({"customer": "pm_1"}, "customer"),
        ({"offSession": True}, "offSession"),
        ({"offSession": "yes", "paymentMethod": "pm_1"}, "offSession"),
        ({"card": {"number": CARD}}, "card"),
    ],
    ids=str,
)
async def test_an_invalid_id_is_refused_and_named(api: Api, tenant, fields, named):
    status, said, _ = await post(api, **fields)

    assert (status, [error["field"] for error in said["errors"]]) == (422, [named])
    assert await payments(tenant) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"paymentMethod": CARD},
        {"paymentMethod": f"pm_{CARD}"},
        {"paymentMethod": "4242 4242 4242 4242"},
        {"customer": CARD},
        {"description": f"paid with {CARD}"},
        {"metadata": {"card": "4242-4242-4242-4242"}},
        {"metadata": {"card": int(CARD)}},
        {"metadata": {"card": float(CARD)}},
        {"metadata": {CARD: "yes"}},
        {"metadata": {"card": "4222222222222"}},
        {"metadata": {"card": "3056\u00a09309\u00a00259\u00a004 12/27 123"}},
        {"card": CARD},
    ],
    ids=str,
)
async def test_a_cards_number_is_in_no_answer_no_log_and_no_table(api: Api, tenant, caplog, fields):
    with caplog.at_level(logging.DEBUG):
        status, _, text = await post(api, **fields)
        batch = {"items": [{"amount": 1, **fields}]}
        async with api.post("/payments/batch", json=batch) as response:
            verdict = await response.text()

    written = text + verdict + caplog.text + "".join(str(vars(record)) for record in caplog.records)
    assert status == 422 and '"invalid"' in verdict
    assert not holds_card(written)
    assert await payments(tenant) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata": {"boleto": "34192.23478 03440.980013 57846.766970 6 99550000148847"}},
        {"description": "Pedido 1099 tel 62 96958-4830 2025-11-10"},
        {"metadata": {"ean": "4006385154334", "price": 0.4242424242424242}},
    ],
    ids=str,
)
async def test_a_payment_with_other_long_numbers_is_accepted(api: Api, fields):
    status, _, text = await post(api, **fields)

    assert status == 202, text


@pytest.mark.parametrize(
    "text",
    [
        "5555 5555 5555 4444",
        "378282246310005",
        "card 4000-0000-0000-3220.",
        "6011111111111117",
        "4242.4242.4242.4242",
        "30569309025904",
        "3056 930902 5904",
        "6205500000000000004",
        "6062826786276634",
    ],
)
def test_card_numbers_are_detected_by_their_check_digit(text):
    assert holds_card(text)


@pytest.mark.parametrize(
    "text",
    [
        "4242 4242 4242 4242 12/27 123",
        "4242424242424242 123",
        "4242424242424242 1227 123",
        "order 7 4242424242424242",
        "order 2026-000123 4242 4242 4242 4242",
        "3782 822463 10005 1234",
        "7 6205500000000000004 12",
    ],
)
def test_a_card_number_is_detected_beside_its_expiry_its_cvc_and_an_order_number(text):
    assert holds_card(text)


@pytest.mark.parametrize(
    "text",
    [
        "4242424242424241",
        "1732250000000",
        "2026-11-22 05:31:02.123",
        "5f4c5b1e-8f7b-4a57-9d2f-0c9a3a1f2b11",
        "18446744073709551615",
        "order 2026-000123 of 2026-11-22",
        "20261122-0000012345",
        "1000-2000-3000-4008",
        "+49 151 12345671",
        "4006381333931",
        "352099001761481",
        "36123456000109",
        "52345678-1234-4234-9234-123456789012",
    ],
)
def test_other_numbers_are_not_card_numbers(text):
    assert not holds_card(text)


# -- What was written before there were methods --------------------------------------------------------------

AT = datetime(2026, 1, 2, tzinfo=UTC)
OLD = {
    "tenant_id": 1,
    "correlation_id": UUID(int=1),
    "amount": 1990,
    "currency": "BRL",
    "description": "Two coffees",
    "metadata": {"order": "7"},
    "processor": "default",
    "priority": 3,
}


def test_a_payment_without_a_method_has_the_fingerprint_it_always_had():
    """Else a sender who repeats a payment of last year would be told that its content is another."""
    assert fingerprint(NewPayment(**OLD)).hex() == "d222b5c43c52f021165ca4c5f15a5dd7"


def test_a_payment_spilled_without_a_method_is_read():
    row = msgspec.msgpack.encode({"order": OLD, "fingerprint": b"x", "at": AT})

    assert decode(row).payment.method is None


async def test_a_method_outlives_the_spill(tenant):
    payment = NewPayment(**{**OLD, "tenant_id": tenant.pk}, method={"paymentMethod": "pm_1"})

    assert decode(encode(Submission(payment, b"x", AT))).payment == payment


async def test_a_method_is_stored_unchanged(tenant):
    payment = NewPayment(**{**OLD, "tenant_id": tenant.pk, "processor": ""}, method={"paymentMethod": "pm_1"})

    await submit(payment)

    assert await database.fetch("SELECT method FROM payments_payment WHERE tenant_id = %s", [tenant.pk]) == [
        ({"paymentMethod": "pm_1"},)
    ]
