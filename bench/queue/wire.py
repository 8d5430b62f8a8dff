"""HTTP connection to the queue and its messages, with minimal work per message.

A message carries producer, partition and number, so that its readers detect missing, repeated and reordered
messages. As JSON its payload has 28 bytes; its transaction id looks like the UUIDs that clients send.
"""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from bench.wire import Answer, next_answer


class Got(msgspec.Struct, rename="camel"):
    """Fields of a message that a reader needs."""

    transaction_id: str
    partition_id: str
    lease_id: str
    data: str


class Popped(msgspec.Struct):
    messages: list[Got]


popped = msgspec.json.Decoder(Popped).decode


class Connection(asyncio.Protocol):
    """A keep-alive connection with one request at a time."""

    def __init__(self) -> None:
        self.unread = b""
        self.waiting: asyncio.Future[Answer] | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.unread = self.unread + data if self.unread else data
        if (answer := next_answer(self.unread)) is None:
            return
        self.unread = answer.rest
        if self.waiting and not self.waiting.done():
            self.waiting.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.waiting and not self.waiting.done():
            self.waiting.set_exception(exc or ConnectionResetError("closed before the answer"))

    async def ask(self, request: bytes) -> Answer:
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.waiting


async def connect(port: int) -> Connection:
    _, found = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return found


# -- Requests --------------------------------------------------------------------------------------------


def poster(path: str, headers: dict[str, str]) -> Callable[[str], bytes]:
    """A function that encodes a POST request with a body."""
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{more}Content-Length: "
    return lambda body: f"{head}{len(body)}\r\n\r\n{body}".encode()  # ASCII only: characters are bytes


def getter(path: str, headers: dict[str, str]) -> bytes:
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{more}\r\n".encode()


def payload(producer: int, partition: int, number: int) -> str:
    return f"{producer:04d}-{partition:05d}-{number:09d}-bench"


def pushing(queue: str, producer: int, partition: int, numbers: Sequence[int]) -> str:
    """Body of a push."""
    items = [
        f'{{"queue":"{queue}","partition":"p{partition}","payload":"{payload(producer, partition, n)}",'
        f'"transactionId":"{n:08x}-{producer:04x}-7000-8000-{partition:012x}"}}'
        for n in numbers
    ]
    return f'{{"items":[{",".join(items)}]}}'


def acking(messages: Sequence[Got], group: str) -> str:
    """Body of an ack: one message for /api/v1/ack, several for /api/v1/ack/batch."""
    acks = [
        f'{{"transactionId":"{m.transaction_id}","partitionId":"{m.partition_id}","leaseId":"{m.lease_id}",'
        f'"status":"completed","consumerGroup":"{group}"}}'
        for m in messages
    ]
    return acks[0] if len(acks) == 1 else f'{{"consumerGroup":"{group}","acknowledgments":[{",".join(acks)}]}}'
