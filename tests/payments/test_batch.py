"""Batches of up to a thousand payments: one result per item, in order; invalid items do not affect the others."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from payments.api import batch
from payments.models import Payment
from registry.data import database
from tests.conftest import Api


async def send(api: Api, *items: Any) -> list[dict[str, Any]]:
    """The verdicts. An item that is text is sent as it stands."""
    body = ",".join(item if isinstance(item, str) else json.dumps(item) for item in items)
    async with api.post(
        "/payments/batch", data=f'{{"items":[{body}]}}'.encode(), headers={"Content-Type": "application/json"}
    ) as response:
        assert response.status == 200, await response.text()
        return (await response.json())["results"]


def item(amount: Any = "1.00", **fields: Any) -> dict[str, Any]:
    return {"correlationId": str(uuid4()), "amount": amount, **fields}


async def accepted(tenant: Any) -> int:
    async with database.own_connection():
        return await Payment.async_objects.of(tenant.pk).acount()


async def test_a_thousand_payments_are_accepted_in_order(api: Api, tenant):
    items = [item(f"{n + 1}.00") for n in range(1000)]

    verdicts = await send(api, *items)

    assert verdicts == [{"correlationId": one["correlationId"], "status": "queued"} for one in items]
    assert await accepted(tenant) == 1000


async def test_a_batch_sent_again_is_replayed(api: Api, tenant):
    items = [item() for _ in range(30)]
    await send(api, *items)

    verdicts = await send(api, *items)

    assert {verdict["status"] for verdict in verdicts} == {"replayed"}
    assert await accepted(tenant) == 30


async def test_the_same_id_twice_in_a_batch_is_one_payment(api: Api, tenant):
    one = item()

    verdicts = await send(api, one, one, one | {"amount": "2.00"})

    assert [verdict["status"] for verdict in verdicts] == ["queued", "replayed", "conflict"]
    assert await accepted(tenant) == 1


async def test_an_item_without_an_id_is_given_one(api: Api):
    [verdict] = await send(api, {"amount": "1.00"})

    assert (await api.status(verdict["correlationId"]))["status"] == "queued"


@pytest.mark.parametrize(
    "bad",
    [
        *(
            "null",
            "1",
            "[]",
            '"text"',
            "{}",
            '{"amount": 0}',
            '{"amount": "1.999"}',
            '{"amount": 1e400}',
            '{"amount": true}',
        ),
        *(
            '{"amount": 1, "metadata": {"a": 1e400}}',
            '{"amount": 1, "surprise": 1}',
            '{"amount": 1, "description": "\\u0000"}',
        ),
        *(
            '{"amount": 1, "metadata": {"a": {}}}',
            '{"amount": 1, "correlationId": "x"}',
            '{"amount": 1, "currency": "XXX"}',
        ),
        *(
            '{"amount": 1, "metadata": {"a": 99999999999999999999}}',
            '{"amount": 1, "description": "' + "x" * 70_000 + '"}',
        ),
    ],
    ids=lambda bad: bad[:40],
)
async def test_an_invalid_item_does_not_affect_the_others(api: Api, tenant, bad):
    good = [item(), item()]

    verdicts = await send(api, good[0], bad, good[1])

    assert [verdict["status"] for verdict in verdicts] == ["queued", "invalid", "queued"]
    assert verdicts[1]["error"]["detail"]
    assert await accepted(tenant) == 2


async def test_every_fault_of_an_item_is_named(api: Api):
    [verdict] = await send(api, {"amount": "1.999", "correlationId": "mine", "surprise": 1, "currency": "XXX"})

    assert {fault["field"] for fault in verdict["error"]["errors"]} == {
        "amount",
        "correlationId",
        "surprise",
        "currency",
    }
    assert verdict["correlationId"] == "mine"


async def test_an_id_used_by_another_tenant_is_free(api: Api, stranger: Api):
    one = item()
    await send(stranger, one | {"amount": "7.00"})

    [verdict] = await send(api, one)

    assert verdict["status"] == "queued"
    assert (await stranger.status(one["correlationId"]))["amount"] == "7.00"


async def test_an_item_nested_too_deeply_does_not_affect_the_others(api: Api):
    deep = '{"amount":"1.00","description":"\\u0000","metadata":' + "[" * 3000 + "]" * 3000 + "}"
    body = f'{{"items":[{deep},{{"amount":"1.00"}}]}}'

    async with api.post("/payments/batch", data=body, headers={"Content-Type": "application/json"}) as response:
        answer = await response.json()

    assert response.status == 200, answer
    assert [result["status"] for result in answer["results"]] == ["invalid", "queued"]


@pytest.mark.parametrize(("size", "turns"), [(10, 0), (5000, 1)])
async def test_other_requests_are_served_before_a_large_item(tenant, size: int, turns: int):
    others: list[int] = []
    asyncio.get_running_loop().call_soon(others.append, 1)

    await batch._decoded(msgspec.Raw(json.dumps(item(metadata={"note": "x" * size})).encode()), tenant)

    assert len(others) == turns
