"""A websocket that follows a numbered event stream: authorization, live events, resume, limits for what clients send.

The hub feeds it; it holds no database connection between messages. Apps add their own messages and greetings.
"""

import asyncio
import time
from contextlib import suppress
from typing import Annotated, Any, ClassVar
from urllib.parse import parse_qs
from uuid import UUID

import msgspec
from channels.generic.websocket import AsyncWebsocketConsumer

from registry.data import database, live
from registry.data.stream import EventStream, Reader
from registry.edge import heads
from registry.edge.api import ENCODER
from registry.errors import Problem, Unauthorized, Unavailable
from registry.telemetry import metrics

NO_RIGHT, BAD_MESSAGE, TOO_SLOW, AWAY = 4401, 4400, 4408, 1013
SEND_TIMEOUT = 10.0  # seconds that a client may take for one message before it counts as too slow
OPENING = 0.25  # seconds in which a client may send `resume` before it gets live events
KEY_RECHECK = 0.5  # seconds; the key's cache answers, not the database
SESSION_RECHECK = 15.0  # seconds
LARGEST_FRAME = 16 * 1024  # bytes from a client
MESSAGES_PER_SECOND, BURST = 10, 50  # from a client
SUBSCRIBED_IDS = 500
READ_AT_ONCE = 500  # events per read of a resume


class Resume(msgspec.Struct, tag_field="type", tag="resume", forbid_unknown_fields=True):
    """Send again everything above this number."""

    after: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Subscribe(msgspec.Struct, tag_field="type", tag="subscribe", forbid_unknown_fields=True):
    """Only these subjects from now on; an empty list means all."""

    ids: list[UUID]


class Ping(msgspec.Struct, tag_field="type", tag="ping", forbid_unknown_fields=True):
    """Answered with a pong."""


class BadMessage(Exception):
    """The client sent what is not in the contract."""


def message_of(kind: bytes, number: int, event: live.Event) -> bytes:
    """`{"type", "sequence", kind: object}`, and what is said beside the object."""
    beside = b"," + ENCODER.encode(event.beside)[1:-1] if event.beside else b""
    return b'{"type":"%b","sequence":%d,"%b":%b%b}' % (kind, number, kind, event.body, beside)


class LiveSocket(AsyncWebsocketConsumer):
    """All events of a tenant, counted by the tenant's numbers. Subclasses authorize; they may narrow it to one subject."""

    channel_layer_alias = ""  # no Redis subscription per socket: the hub has one for all
    stream: ClassVar[EventStream]
    kind: ClassVar[bytes]  # of an event's message and of the object in it, such as payment
    decoder: ClassVar[msgspec.json.Decoder] = msgspec.json.Decoder(Resume | Ping)
    tenant_id: int

    _pump: asyncio.Task | None = None
    _guard: asyncio.Task | None = None

    async def __call__(self, *connection: Any) -> None:
        try:
            await super().__call__(*connection)
        finally:  # also when the client hung up in the middle of an answer, for which `disconnect` is not called
            tasks = [task for task in (self._pump, self._guard) if task]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def connect(self) -> None:
        self._allowance, self._counted_at = float(BURST), time.monotonic()
        self._greeted, self._spoken = asyncio.Event(), asyncio.Event()
        self.reader = Reader(number=self.number, past=self.past, send=self.send_event)
        await self.accept()
        try:
            tenant_id = await database.faults_as_unavailable(self.authority)
        except Problem as error:
            await self._close(NO_RIGHT if error.status in (401, 403, 404) else AWAY)
            return
        finally:
            await database.release()
        self.tenant_id = tenant_id
        self._pump = asyncio.create_task(self._feed())
        self._guard = asyncio.create_task(self._watch())

    # -- Authorization ---------------------------------------------------------------------------------------

    async def authority(self) -> int:
        """The tenant whose events this socket may read. Raises Unauthorized."""
        raise NotImplementedError

    @property
    def recheck(self) -> float:
        """Seconds between checks of the authorization; 0 for one that cannot be revoked."""
        return KEY_RECHECK if self.header(b"authorization") else SESSION_RECHECK

    async def _watch(self) -> None:
        """Check the authorization again: keys every 0.5 s, sessions every 15 s. Close with 4401 when it is gone."""
        while every := self.recheck:
            await asyncio.sleep(every)
            try:
                async with database.own_connection():  # the one of our context is the socket's
                    if await database.faults_as_unavailable(self.authority) != self.tenant_id:
                        raise Unauthorized
            except Problem as error:
                if error.status in (401, 403, 404):
                    await self._close(NO_RIGHT)
                    return

    def query(self, name: str) -> str:
        return parse_qs(self.scope["query_string"].decode("latin1")).get(name, [""])[0]

    def header(self, name: bytes) -> str:
        return heads.value_of(self.scope, name)

    # -- Events to the client --------------------------------------------------------------------------------

    def subjects(self) -> tuple[str, ...]:
        """The subjects that this socket shows; none: the whole tenant."""
        return ()

    def number(self, event: live.Event) -> int:
        """The number that this socket counts by."""
        return event.position

    async def past(self, after: int) -> list[live.Event]:
        """The next events above a number, in order; none when there are no more."""
        return await self.stream.since(self.tenant_id, after, READ_AT_ONCE)

    async def greet(self) -> None:
        """Sent first, once the subscription stands."""

    async def _feed(self) -> None:
        try:
            async with self.stream.follow(self.tenant_id, *self.subjects()) as subscription:
                await self.greet()
                self._greeted.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(OPENING):
                        await self._spoken.wait()
                while True:
                    for event in await subscription.get():
                        await self.reader.offer(event)
        except (live.TooSlow, TimeoutError):  # before OSError, of which TimeoutError is one
            metrics.LIVE_DROPPED.inc()
            await self._close(TOO_SLOW)
        except Problem:
            await self._close(AWAY)
        except OSError:
            pass  # the client hung up
        finally:
            self._greeted.set()

    async def send_event(self, event: live.Event) -> None:
        metrics.LIVE_EVENTS.inc()
        await self.send_message(self.message(event))

    def message(self, event: live.Event) -> bytes:
        """The event as the client gets it."""
        return message_of(self.kind, self.number(event), event)

    async def send_message(self, message: bytes) -> None:
        async with asyncio.timeout(SEND_TIMEOUT):
            await self.send(text_data=message.decode())

    async def _close(self, code: int) -> None:
        # Without a limit: a client that reads again must learn that it was left; the server's pings end a dead line.
        with suppress(RuntimeError):
            await self.close(code=code)

    # -- Messages from the client ----------------------------------------------------------------------------

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self._pump is None:
            return
        await self._greeted.wait()
        try:
            await self.answer(self._read(text_data, bytes_data))
        except BadMessage as error:
            await self.send_message(ENCODER.encode({"type": "error", "detail": str(error)}))
            await self._close(BAD_MESSAGE)
        except Problem as error:
            await self._refuse(error)
        except TimeoutError:
            await self._close(TOO_SLOW)
        except Exception as error:
            if (refusal := database.unavailable(error)) is None:
                raise
            await self._refuse(refusal)
        finally:
            self._spoken.set()
            await database.release()

    async def _refuse(self, problem: Problem) -> None:
        await self.send_message(ENCODER.encode({"type": "error", "detail": problem.detail, "errors": problem.errors}))

    def _read(self, text: str | None, data: bytes | None) -> Any:
        now = time.monotonic()
        self._allowance = min(BURST, self._allowance + (now - self._counted_at) * MESSAGES_PER_SECOND) - 1
        self._counted_at = now
        if self._allowance < 0:
            raise BadMessage(f"too many messages; at most {MESSAGES_PER_SECOND} a second")
        if data is not None or text is None:
            raise BadMessage("only text frames with JSON are understood")
        if len(text) > LARGEST_FRAME:
            raise BadMessage(f"a message may have at most {LARGEST_FRAME} bytes")
        try:
            return self.decoder.decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise BadMessage(f"not a message of the contract: {str(error)[:200]}") from None

    async def answer(self, message: Any) -> None:
        """Act on a message. Subclasses take their own first."""
        match message:
            case Ping():
                await self.send_message(b'{"type":"pong"}')
            case Resume(after=after):
                await self._resume(after)

    async def subscribe(self, ids: list[UUID]) -> None:
        """Send events of these subjects only; for sockets of a whole tenant."""
        if len(ids) > SUBSCRIBED_IDS:
            raise BadMessage(f"at most {SUBSCRIBED_IDS} ids")
        self.reader.only = frozenset(map(str, ids)) or None
        await self.send_message(ENCODER.encode({"type": "subscribed", "ids": ids}))

    async def _resume(self, after: int) -> None:
        try:
            await self.reader.resume(after, started=self._spoken.set)
        except Unavailable:
            await self._close(AWAY)  # the events that were left to the resume would be missing
