"""The websockets of the test double."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import msgspec

from registry_client._io.sockets import NO_RIGHT, SocketClosed
from registry_client.testing.changes import Changes
from registry_client.testing.streams import FakeEvent, FakeStream
from registry_client.testing.wire import Json


class FakeSocket:
    """What one websocket has to say: the events of one object by their sequence, or all of a stream by their number."""

    def __init__(self, stream: FakeStream, subject: str | None) -> None:
        self._stream, self._subject = stream, subject
        self._said: deque[str] = deque()
        self._sent = self._greet() if subject else stream.number

    def _greet(self) -> int:
        events = self._stream.of_subject(self._subject or "")
        if not events:
            raise SocketClosed(NO_RIGHT, "closed by the test double")
        self._say(events[-1])
        return events[-1].sequence

    def _number(self, event: FakeEvent) -> int:
        return event.sequence if self._subject else event.number

    def _say(self, event: FakeEvent) -> None:
        self._said.append(msgspec.json.encode(self._stream.message(self._number(event), event.body)).decode())

    def hear(self, text: str) -> None:
        """A message of the client."""
        message: Json = msgspec.json.decode(text)
        if message["type"] == "ping":
            self._said.append('{"type":"pong"}')
        elif message["type"] == "resume":
            self._sent = message["after"]
            self._follow()

    def next(self) -> str | None:
        """The next message for the client; None while there is none."""
        self._follow()
        return self._said.popleft() if self._said else None

    def _follow(self) -> None:
        after = self._sent
        found = self._stream.of_subject(self._subject, after) if self._subject else self._stream.since(after)
        for event in found:
            self._say(event)
            self._sent = self._number(event)


class ThreadSocket:
    """The websocket of the blocking half."""

    def __init__(self, socket: FakeSocket, changes: Changes) -> None:
        self._socket, self._changes = socket, changes

    def send(self, text: str) -> None:
        with self._changes.lock:
            self._socket.hear(text)

    def receive(self) -> str:
        while True:
            changed = self._changes.thread_waiter()
            with self._changes.lock:
                if (text := self._socket.next()) is not None:
                    return text
            changed.wait()


class LoopSocket:
    """The websocket of the asynchronous half."""

    def __init__(self, socket: FakeSocket, changes: Changes) -> None:
        self._socket, self._changes = socket, changes

    async def send(self, text: str) -> None:
        with self._changes.lock:
            self._socket.hear(text)

    async def receive(self) -> str:
        while True:
            changed = self._changes.loop_waiter()
            with self._changes.lock:
                if (text := self._socket.next()) is not None:
                    return text
            await changed.wait()


class FakeSockets:
    """Opens websockets by their path: /ws/payments, /ws/payments/{id}, /ws/jobs."""

    def __init__(self, changes: Changes, streams: dict[str, FakeStream]) -> None:
        self._changes, self._streams = changes, streams

    @contextmanager
    def opened(self, path: str) -> Iterator[ThreadSocket]:
        yield ThreadSocket(self._socket(path), self._changes)

    @asynccontextmanager
    async def opened_async(self, path: str) -> AsyncIterator[LoopSocket]:
        await asyncio.sleep(0)
        yield LoopSocket(self._socket(path), self._changes)

    def _socket(self, path: str) -> FakeSocket:
        _, _, noun, *subject = path.split("/")
        with self._changes.lock:
            return FakeSocket(self._streams[noun.removesuffix("s")], subject[0] if subject else None)
