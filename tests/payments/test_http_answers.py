"""Responses of a processor on the wire: in pieces, endless, or too long."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from uuid import UUID

import pytest

from payments.processors.base import Account, Health, Order, Outcome, Result
from payments.processors.http import HttpProcessor

PIECE = 7  # bytes
PACE = 0.002  # seconds between pieces, so that each arrives by itself
TOO_LONG = 1024 * 1024  # bytes; the longest that means something has a few hundred
ORDER = Order(correlation_id=UUID(int=7), amount=1990, currency="BRL", requested_at=datetime(2025, 7, 15, tzinfo=UTC))

type Pieces = Callable[[], AsyncIterator[bytes]]


class Speech:
    """A server that says the same pieces to every request, each in its own packet; `said` counts the bytes."""

    def __init__(self, pieces: Pieces) -> None:
        self.pieces = pieces
        self.said = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"POST"):
                await reader.readuntil(b"}")
            async for piece in self.pieces():
                writer.write(piece)
                await writer.drain()
                self.said += len(piece)
        writer.close()


@asynccontextmanager
async def heard(pieces: Pieces) -> AsyncIterator[tuple[HttpProcessor, Account, Speech]]:
    """A client of a processor that says `pieces`."""
    speech = Speech(pieces)
    async with await asyncio.start_server(speech.answer, "127.0.0.1", 0) as server, HttpProcessor() as client:
        yield client, _account(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), speech


def _account(url: str) -> Account:
    return Account(
        id=1, tenant_id=1, name="slow", kind="http", url=url, fee_ppm=0, options={}, enabled=True, endpoint=url
    )


async def _bit_by_bit(whole: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(whole), PIECE):
        yield whole[start : start + PIECE]
        await asyncio.sleep(PACE)


async def _at_once(whole: bytes) -> AsyncIterator[bytes]:
    yield whole


async def _endless() -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"10000\r\n" + b" " * 0x10000 + b"\r\n"


def with_length(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def chunked(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    parts = [body[start : start + 50] for start in range(0, len(body), 50)]
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize("framed", [with_length, chunked])
async def test_an_answer_in_many_pieces_is_read_whole(framed):
    body = json.dumps({"failing": True, "minResponseTime": 1234, "message": "payment processed"}).encode()

    async with heard(lambda: _bit_by_bit(framed(body))) as (client, account, _):
        sent = await client.send(ORDER, account)
        looked_up = await client.look_up(ORDER, account)
        health = await client.health(account)

    assert sent == Outcome(Result.BOOKED, code="http_200")
    assert looked_up == Outcome(Result.BOOKED, code="looked_up")
    assert health == Health(failing=True, min_response_ms=1234)


@pytest.mark.parametrize("framed", [with_length, chunked])
async def test_a_response_that_is_too_long_is_truncated_and_proves_nothing(framed):
    body = json.dumps({"failing": True, "minResponseTime": 1, "message": "x" * TOO_LONG}).encode()

    async with heard(lambda: _at_once(framed(body))) as (client, account, _):
        sent = await client.send(ORDER, account)
        looked_up = await client.look_up(ORDER, account)
        health = await client.health(account)

    assert (sent.result, looked_up.result, health) == (Result.UNKNOWN, Result.UNKNOWN, None)


async def test_an_endless_response_is_aborted_before_it_fills_the_memory():
    async with heard(_endless) as (client, account, speech), asyncio.timeout(3):
        outcome = await client.send(ORDER, account)

    assert outcome.result is Result.UNKNOWN
    assert speech.said < 16 * TOO_LONG  # what the network's buffers hold, and no more
