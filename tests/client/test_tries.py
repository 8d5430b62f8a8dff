"""When the client sends a request again, and when it does not: over a way to the service that gets into trouble."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from registry_client import (
    NO_RETRY,
    ConnectionFailed,
    NewMessage,
    NewPayment,
    NotConnected,
    RateLimited,
    RequestTimeout,
    Retry,
    ServerFailed,
    ServiceUnavailable,
    UnexpectedResponse,
)
from tests.client import halves
from tests.client.unreliable import Unreliable
from tests.conftest import Api
from tests.factories import in_thread, make_payment, make_processor
from tests.registry.http_server import Server, hanging, saying


async def test_a_payment_whose_answer_was_lost_is_accepted_once(far: Any, way: Unreliable, client: Any):
    way.loses_answers(times=2)

    payment = await far.payments.submit("19.90")

    assert payment.replayed
    assert way.requests == ["POST /payments"] * 3
    assert (await client.payments.page()).total == 1


async def test_a_refund_whose_answer_was_lost_is_made_once(far: Any, way: Unreliable, tenant):
    processor = await in_thread(make_processor, tenant)
    paid = await in_thread(make_payment, tenant, status="succeeded", processor=processor)
    way.loses_answers()

    refund = await far.payments.refunds.create(paid.correlation_id, "5.00")

    assert [one.id for one in await far.payments.refunds.list(paid.correlation_id)] == [refund.id]


async def test_a_batch_whose_answer_was_lost_is_accepted_once(far: Any, way: Unreliable, client: Any):
    way.loses_answers()

    results = await far.payments.batch([NewPayment(amount=Decimal(1)) for _ in range(3)])

    assert [one.status for one in results] == ["replayed"] * 3
    assert (await client.payments.page()).total == 3


async def test_a_message_whose_answer_was_lost_is_stored_once(far: Any, way: Unreliable):
    way.loses_answers()

    pushed = await far.queue.push("orders", {"id": 1})

    assert (pushed.status, pushed.accepted) == ("duplicate", True)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_refusal_that_passes_is_waited_out(far: Any, way: Unreliable, status: int):
    way.answers(status, times=3)

    await far.payments.submit("19.90")

    assert len(way.requests) == 4


async def test_the_pause_is_as_long_as_the_service_asks_for(far: Any, way: Unreliable):
    way.answers(503, Retry_After="1")
    began = asyncio.get_running_loop().time()

    await far.payments.submit("19.90")

    assert asyncio.get_running_loop().time() - began >= 1


@pytest.mark.parametrize(("status", "error"), [(429, RateLimited), (503, ServiceUnavailable)])
async def test_a_pause_that_exceeds_the_time_budget_is_not_begun(
    far: Any, way: Unreliable, status: int, error: type[Exception]
):
    way.answers(status, Retry_After="3600")

    with pytest.raises(error) as refused:
        await far.payments.submit("19.90")

    assert (refused.value.retry_after, len(way.requests)) == (3600, 1)


async def test_an_error_of_the_service_or_the_request_is_not_tried_again(far: Any, way: Unreliable):
    for status, error in ((500, ServerFailed), (400, Exception)):
        way.answers(status)
        with pytest.raises(error):
            await far.payments.submit("19.90")

    assert len(way.requests) == 2


async def test_a_client_that_shall_not_try_again_does_not(half: str, way: Unreliable, key: str):
    client = halves.make(half, way.url, key, retry=NO_RETRY)
    way.loses_requests()

    with pytest.raises(ConnectionFailed):
        await client.payments.submit("19.90")

    assert len(way.requests) == 1
    await halves.end(client)


async def test_the_tries_end_with_the_time_budget(half: str, way: Unreliable, key: str):
    client = halves.make(half, way.url, key, retry=Retry(budget=0.3, first=0.05, longest=0.05))
    way.loses_requests(times=1000)

    with pytest.raises(ConnectionFailed):
        await client.payments.submit("19.90")

    assert len(way.requests) > 1
    await halves.end(client)


async def test_a_pop_is_not_repeated_once_it_may_have_been_executed(far: Any, way: Unreliable):
    await far.queue.push("orders", 1)
    way.requests.clear()
    for trouble in (way.loses_answers, way.loses_requests, lambda: way.answers(503)):
        trouble()
        with pytest.raises((ConnectionFailed, ServiceUnavailable)):
            await far.queue.pop("orders")

    assert len(way.requests) == 3


async def test_a_pop_that_was_certainly_not_executed_is_repeated(far: Any, way: Unreliable):
    await far.queue.push("orders", 1)
    way.answers(429)

    assert [message.data for message in await far.queue.pop("orders")] == [1]


async def test_a_transaction_is_not_repeated_once_it_may_have_been_executed(far: Any, way: Unreliable):
    way.loses_answers()

    with pytest.raises(ConnectionFailed):
        await far.queue.transaction([NewMessage(queue="orders", payload=1)])

    assert way.requests == ["POST /api/v1/transaction"]


async def test_nobody_there_is_an_error_that_says_that_nothing_was_executed(half: str, way: Unreliable, key: str):
    client = halves.make(half, way.url, key, retry=NO_RETRY)
    way.closes()

    with pytest.raises(NotConnected):
        await client.payments.submit("19.90")

    await halves.end(client)


async def test_a_service_that_never_answers_is_a_time_out(half: str):
    async with Server(hanging) as silent:
        client = halves.make(half, silent.url, timeout=0.2, retry=NO_RETRY)

        with pytest.raises(RequestTimeout):
            await client.payments.submit("19.90")

        await halves.end(client)


async def test_an_answer_that_is_not_documented_is_an_error_of_its_own(half: str):
    async with Server(saying(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n[]")) as strange:
        client = halves.make(half, strange.url)

        with pytest.raises(UnexpectedResponse):
            await client.payments.submit("19.90")

        await halves.end(client)


async def test_an_export_that_breaks_off_is_an_error_and_no_short_export(half: str):
    chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\n\r\n"
    async with Server(saying(chunk, then_close=True)) as broken:
        client = halves.make(half, broken.url)

        with pytest.raises(ConnectionFailed):
            [one async for one in client.payments.export()]
        with pytest.raises(ConnectionFailed):
            async with client.payments.export_csv() as chunks:
                [one async for one in chunks]

        await halves.end(client)


async def test_waiting_goes_on_while_the_way_is_in_trouble(far: Any, way: Unreliable, api: Api, tenant):
    payment = await far.payments.submit("19.90")
    way.loses_answers(times=3)
    way.answers(503, times=3)

    waiting = asyncio.ensure_future(far.payments.wait(payment.correlation_id))
    await api.post(f"/payments/{payment.correlation_id}/cancel")

    assert (await waiting).status == "canceled"
