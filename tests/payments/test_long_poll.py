"""The long poll of contract section 3: events after a sequence, the wait, authorization, and clients that hang up."""

import asyncio
import random
import time
from datetime import UTC, datetime
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
import pytest

from payments.books import events, purge
from payments.books.payer import FIELDS
from registry.data import live
from tests.conftest import Api, all_connections_are_back, at_work, eventually
from tests.depth import deep
from tests.factories import in_thread, make_processor


@pytest.fixture
async def sandbox(tenant):
    return await in_thread(make_processor, tenant, "default", options={"delay": 0})


async def poll(api: Api, payment: dict, **query: object) -> dict:
    async with api.get(
        f"/payments/{payment['correlationId']}/events", params={k: str(v) for k, v in query.items()}
    ) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def test_events_after_a_sequence_are_returned_at_once_in_order_as_over_a_socket(api: Api, sandbox, worker):
    payment = await api.pay()
    await api.until(payment["correlationId"], "succeeded")

    answer = await poll(api, payment, after=1, wait=20)

    assert [event["sequence"] for event in answer["events"]] == [2, 3]
    assert answer["next"] == 3
    assert answer["events"][-1] == {
        "type": "payment",
        "sequence": 3,
        "payment": await api.status(payment["correlationId"]),
    }


async def test_a_waiting_poll_returns_at_the_next_event(api: Api, sandbox):
    payment = await api.pay()
    waiting = asyncio.create_task(poll(api, payment, after=1, wait=20))
    await eventually(lambda: live.hub().feeds)

    started = time.monotonic()
    async with at_work():
        answer = await waiting

    assert answer["events"][0]["payment"]["status"] == "processing"
    assert time.monotonic() - started < 2


async def test_a_poll_returns_no_events_after_its_wait(api: Api):
    payment = await api.pay()

    started = time.monotonic()
    answer = await poll(api, payment, after=1, wait=1)

    assert answer == {"events": [], "next": 1}
    assert 0.9 < time.monotonic() - started < 3


async def test_a_reader_that_polls_on_sees_every_event_once(api: Api, sandbox):
    payment = await api.pay()
    seen, after = [], 0

    async with at_work():
        while after < 3:
            answer = await poll(api, payment, after=after, wait=5)
            seen += [event["sequence"] for event in answer["events"]]
            after = answer["next"]

    assert seen == [1, 2, 3]


async def test_the_token_of_the_payments_link_is_sufficient(api: Api):
    payment = await api.pay()

    async with aiohttp.ClientSession(api.address) as nobody:
        token = urlsplit(payment["liveUrl"]).query
        async with nobody.get(f"/payments/{payment['correlationId']}/events?wait=0&{token}") as response:
            answer = await response.json()

    assert (response.status, [event["sequence"] for event in answer["events"]]) == (200, [1])


async def test_an_event_of_a_payment_that_is_purged_meanwhile_tells_a_payer_nothing_of_the_seller(api: Api, tenant):
    payment = await api.pay(description="Two coffees")
    stated = {
        "correlation_id": payment["correlationId"],
        "status": "succeeded",
        "amount": 1990,
        "currency": "BRL",
        "processor": "acquirer",
        "attempts": 2,
    }
    async with aiohttp.ClientSession(api.address) as nobody:
        token = urlsplit(payment["liveUrl"]).query
        address = f"/payments/{payment['correlationId']}/events?wait=20&after=1&{token}"
        waiting = asyncio.create_task(nobody.get(address))
        await eventually(lambda: live.hub().feeds)
        position = (await events.positions([tenant.pk]))[tenant.pk] + 1
        await purge.purge(tenant_id=tenant.pk)
        live.publish(
            [events.event(tenant=tenant.pk, position=position, updated_at=datetime.now(UTC), sequence=3, **stated)]
        )
        async with await waiting as response:
            answer = await response.json()

    [event] = answer["events"]
    assert tuple(event["payment"]) == FIELDS


@pytest.mark.parametrize(
    "query", ["wait=0&token={tenant:x}.AAAAAAAAAAAAAAAAAAAA", "wait=0&token=zz", "wait=0&token=%00"]
)
async def test_a_wrong_token_gets_the_same_404_as_an_unknown_payment(api: Api, tenant, query: str):
    payment = await api.pay()
    bodies = []

    async with aiohttp.ClientSession(api.address) as nobody:
        for correlation_id in (payment["correlationId"], uuid4()):
            async with nobody.get(f"/payments/{correlation_id}/events?{query.format(tenant=tenant.pk)}") as response:
                bodies.append((response.status, await response.json()))

    assert bodies[0] == bodies[1]
    assert bodies[0][0] == 404


async def test_another_tenant_cannot_poll_a_payment(api: Api, stranger: Api):
    payment = await api.pay()

    async with stranger.get(f"/payments/{payment['correlationId']}/events?wait=0") as response:
        assert response.status == 404


@pytest.mark.parametrize(
    "query", ["after=-1", "after=x", "after=99999999999", "wait=31", "wait=-1", "wait=1.5", "after=%C2%B2"]
)
async def test_invalid_numbers_are_422_and_named(api: Api, query: str):
    payment = await api.pay()

    async with api.get(f"/payments/{payment['correlationId']}/events?{query}") as response:
        body = await response.json()

    assert response.status == 422
    assert body["errors"][0]["field"] == query.partition("=")[0]


POLLS = deep(100, 500)


async def test_many_polls_that_hang_up_leave_no_subscription_and_no_connection(api: Api, tenant):
    payment = await api.pay()
    url = f"/payments/{payment['correlationId']}/events?after=1&wait=30"
    headers = {"Authorization": f"Bearer {api.key}"}
    async with aiohttp.ClientSession(api.address, connector=aiohttp.TCPConnector(limit=0), headers=headers) as callers:
        polls = [asyncio.create_task(callers.get(url)) for _ in range(POLLS)]
        # Some hang up while their request is still on its way, the rest once all of them wait.
        for waiting in random.Random(1).sample(polls, POLLS // 5):
            waiting.cancel()
            await asyncio.sleep(0)
        await eventually(lambda: ("payments", tenant.pk) in live.hub().feeds)
        await eventually(lambda: len(readers(tenant.pk)) >= POLLS * 4 // 5, within=60.0)  # of a slow machine

        for waiting in polls:
            waiting.cancel()
        await asyncio.gather(*polls, return_exceptions=True)

    await eventually(lambda: ("payments", tenant.pk) not in live.hub().feeds, within=60.0)
    await eventually(all_connections_are_back, within=60.0)


def readers(tenant_id: int) -> set:
    feed = live.hub().feeds.get(
        ("payments", tenant_id)
    )  # gone while nobody reads, such as when the first ones have hung up
    return {reader for group in feed.by_subject.values() for reader in group} if feed else set()
