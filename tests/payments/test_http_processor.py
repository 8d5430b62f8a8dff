"""Errors of a processor of kind http: not booked if the payment cannot have arrived, unknown otherwise."""

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from payments.processors import http
from payments.processors.base import Account, Order, Result
from payments.processors.http import HttpProcessor
from payments.routing import accounts
from tests.conftest import eventually
from tests.registry.http_server import OK, Server, hanging, saying

BOOKED = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"message":"x"}'


def account(url: str) -> Account:
    return Account(
        id=1, tenant_id=1, name="default", kind="http", url=url, fee_ppm=0, options={}, enabled=True, endpoint=url
    )


def order() -> Order:
    return Order(correlation_id=uuid4(), amount=1990, currency="BRL", requested_at=datetime.now(UTC))


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1", "http://nowhere.invalid", "http://user:word@127.0.0.1:1", "ftp://127.0.0.1", ""],
)
async def test_a_failed_connection_means_not_booked(url):
    async with HttpProcessor() as processor:
        outcome = await processor.send(order(), account(url))

    assert (outcome.result, outcome.healthy, outcome.outage) == (Result.NOT_BOOKED, False, True)


async def test_a_missing_response_leaves_the_outcome_unknown(monkeypatch):
    monkeypatch.setattr(http, "SEND_TIMEOUT", 0.2)

    async with Server(hanging) as server, HttpProcessor() as processor:
        outcome = await processor.send(order(), account(server.url))

    assert (outcome.result, outcome.code, outcome.healthy) == (Result.UNKNOWN, "timeout", False)
    assert len(server.requests) == 1


async def test_a_timeout_while_waiting_for_a_connection_means_not_booked(monkeypatch):
    monkeypatch.setattr(http, "CONNECTIONS", 1)
    monkeypatch.setattr(http, "SEND_TIMEOUT", 0.5)

    async with Server(hanging) as server, HttpProcessor() as processor:
        first = asyncio.create_task(processor.send(order(), account(server.url)))
        await eventually(lambda: server.requests)
        monkeypatch.setattr(http, "SEND_TIMEOUT", 0.1)
        second = await processor.send(order(), account(server.url))
        outcome = await first

    assert (second.result, second.code, second.outage) == (Result.NOT_BOOKED, "ConnectTimeout", True)
    assert (outcome.result, len(server.requests)) == (Result.UNKNOWN, 1)


@pytest.mark.parametrize(
    ("answer", "code"),
    [(b"", "Disconnected"), (BOOKED[:-1], "Disconnected"), (b"garbage\r\n\r\n", "BadAnswer"), (OK, "garbage")],
    ids=["none", "broken off", "garbage", "no object"],
)
async def test_an_invalid_response_leaves_the_outcome_unknown(answer, code):
    async with Server(saying(answer, then_close=True)) as server, HttpProcessor() as processor:
        outcome = await processor.send(order(), account(server.url))

    assert (outcome.result, outcome.code, len(server.requests)) == (Result.UNKNOWN, code, 1)


async def closing_at_the_second(reader, writer, server):
    await server.hear(reader)
    writer.write(BOOKED)
    if server.accepted == 1:
        await server.hear(reader)


async def test_a_payment_on_a_connection_that_the_server_closes_is_unknown_and_not_sent_again():
    async with Server(closing_at_the_second) as server, HttpProcessor() as processor:
        first = await processor.send(order(), account(server.url))
        second = await processor.send(order(), account(server.url))

    assert (first.result, second.result) == (Result.BOOKED, Result.UNKNOWN)
    assert (len(server.requests), server.accepted) == (2, 1)


async def test_a_look_up_on_a_connection_that_the_server_closes_is_repeated():
    async with Server(closing_at_the_second) as server, HttpProcessor() as processor:
        await processor.send(order(), account(server.url))
        outcome = await processor.look_up(order(), account(server.url))

    assert (outcome.result, len(server.requests), server.accepted) == (Result.BOOKED, 3, 2)


async def test_a_closed_processor_keeps_no_connection():
    async with Server(saying(BOOKED)) as server:
        async with HttpProcessor() as processor:
            outcomes = await asyncio.gather(*(processor.send(order(), account(server.url)) for _ in range(30)))
            held = len(server.open)
        await eventually(lambda: not server.open)

    assert ({o.result for o in outcomes}, held) == ({Result.BOOKED}, 30)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://user:word@pay.example", "a user or password has no place in an address"),
        ("http://pay.example/?tenant=7", "an address has neither"),
        ("ftp://pay.example", "begins with http:// or https://"),
        ("http://pay.example/" + "a" * 500, "more than 500"),
    ],
)
def test_an_invalid_address_is_refused_when_it_is_saved(url, sentence):
    with pytest.raises(accounts.Refused, match=sentence) as refused:
        accounts.check_url("http", url)

    assert "word@" not in refused.value.detail
