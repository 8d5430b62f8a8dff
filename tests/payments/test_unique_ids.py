"""Placeholder ids such as null are refused: a second payment under one would be taken for a repeat of the first."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments.models import SignUp
from payments.states import SUCCEEDED
from registry.edge.unique import is_empty
from tests.conftest import Api
from tests.factories import in_thread, make_payment, make_processor
from tests.payments.refunding import ask
from tests.payments.signing_up import Person
from tests.payments.test_batch import item, send

NIL, MAX = "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"
EMPTY = [NIL, MAX, MAX.upper(), NIL.replace("-", "")]
KEYS = [*EMPTY, f"urn:uuid:{NIL}", f"{{{MAX}}}", "null", "undefined", "None", "[object Object]"]


async def refusal(api: Api, path: str, body: Any, **headers: str) -> tuple[int, list[str]]:
    """The status, and the fields that are named."""
    async with api.post(path, json=body, headers=headers) as response:
        said = await response.json(content_type=None)
        return response.status, [fault["field"] for fault in said.get("errors", [])]


@pytest.mark.parametrize("id", EMPTY)
async def test_an_id_such_as_null_is_refused_for_a_payment(api: Api, id: str):
    for amount in ("19.90", "19.90", "7.00"):
        assert await refusal(api, "/payments", {"correlationId": id, "amount": amount}) == (422, ["correlationId"])


@pytest.mark.parametrize("name", KEYS)
async def test_an_idempotency_key_such_as_null_is_refused_for_a_payment(api: Api, name: str):
    answer = await refusal(api, "/payments", {"amount": "19.90"}, **{"Idempotency-Key": name})

    assert answer == (422, ["Idempotency-Key"])


async def test_beside_an_id_of_its_own_a_key_counts_for_nothing(api: Api):
    async with api.post("/payments", json=item(), headers={"Idempotency-Key": "undefined"}) as response:
        assert response.status == 202


async def test_only_the_item_of_a_batch_with_an_id_such_as_null_is_invalid(api: Api):
    good, bad = item(), {"correlationId": NIL, "amount": "1.00"}

    verdicts = await send(api, good, bad, {**bad, "correlationId": MAX})

    assert [one["status"] for one in verdicts] == ["queued", "invalid", "invalid"]
    assert [one["correlationId"] for one in verdicts] == [good["correlationId"], NIL, MAX]
    assert verdicts[1]["error"]["errors"][0]["field"] == "correlationId"


async def test_other_faults_are_named_beside_an_id_such_as_null(api: Api):
    status, fields = await refusal(api, "/payments", {"correlationId": NIL, "amount": "1.999", "processor": "nobody"})

    assert (status, set(fields)) == (422, {"correlationId", "amount", "processor"})


@pytest.mark.parametrize("name", KEYS)
async def test_an_idempotency_key_such_as_null_is_refused_for_a_refund(api: Api, tenant, name: str):
    def paid() -> UUID:
        return make_payment(tenant, status=SUCCEEDED, processor=make_processor(tenant)).correlation_id

    payment = await in_thread(paid)

    status, said, _ = await ask(api, payment, {"amount": "1.00"}, **{"Idempotency-Key": name})

    assert (status, said["errors"][0]["field"]) == (422, "Idempotency-Key")


async def test_an_id_such_as_null_is_refused_for_a_sign_up(server: str):
    async with Person(server) as ann:
        await ann.opens("/signup")
        await ann.sends(**ann.details(f"shop-{uuid4().hex[:10]}"), id=NIL)

    assert "Please send this form again." in ann.errors
    assert not await in_thread(SignUp.objects.exists)


@given(
    st.text("0fF-{}urnid:_+xX1 \x0b\x1c٠", max_size=45)
    | st.text("0 +_x", min_size=32, max_size=32)
    | st.uuids().map(str)
    | st.text(max_size=40)
)
def test_an_id_is_empty_if_it_is_parsed_as_the_nil_or_the_max_uuid(text: str):
    try:
        expected = UUID(text).int in (0, 2**128 - 1)
    except ValueError:
        expected = False

    assert is_empty(text) == expected


def test_similar_ids_are_accepted():
    assert not any(map(is_empty, ("00000000-0000-0000-0000-000000000001", "0", "order 4711", "f" * 31, str(uuid4()))))
