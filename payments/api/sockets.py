"""The websockets of contract section 3: one payment by its link, and a tenant's stream. The hub feeds them; they hold no connection."""

import asyncio
import time
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import parse_qs
from uuid import UUID

import msgspec
from channels.generic.websocket import AsyncWebsocketConsumer
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest

from payments.books import events, queries
from payments.states import Status
from registry import telemetry
from registry.data import database, live
from registry.edge.api import ENCODER
from registry.edge.viewer import person_of
from registry.errors import Forbidden, Invalid, Problem, Unauthorized, Unavailable
from registry.models import Membership
from registry.tenants import access, links

NO_RIGHT, BAD_MESSAGE, TOO_SLOW, AWAY = 4401, 4400, 4408, 1013
SEND_TIMEOUT = 10.0  # seconds that a socket may take for one message before it counts as too slow
OPENING = 0.25  # seconds in which a client may say where it left off, before it is sent what is new
KEY_RECHECK = 0.5  # seconds; the key's cache answers, not the database
SESSION_RECHECK = 15.0  # seconds
LARGEST_FRAME = 16 * 1024  # bytes from a client
MESSAGES_PER_SECOND, BURST = 10, 50  # from a client
SUBSCRIBED_IDS = 500
LIST_LIMIT, LIST_AT_MOST = 50, 200  # payments of a list that names no limit, and of any
READ_AT_ONCE = 500  # events per read when a client resumes


class Resume(msgspec.Struct, tag_field="type", tag="resume", forbid_unknown_fields=True):
    """Send again everything after this sequence."""

    after: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Filter(msgspec.Struct, forbid_unknown_fields=True):
    """What a list shows, as in `GET /payments`."""

    status: Status | None = None
    processor: str | None = None
    from_: str | None = msgspec.field(name="from", default=None)
    to: str | None = None


class List(msgspec.Struct, tag_field="type", tag="list", forbid_unknown_fields=True):
    """A page of payments over the socket."""

    id: int | str
    filter: Filter | None = None
    limit: int | None = None


class Subscribe(msgspec.Struct, tag_field="type", tag="subscribe", forbid_unknown_fields=True):
    """Only these payments from now on; an empty list is all again."""

    ids: list[UUID]


class Ping(msgspec.Struct, tag_field="type", tag="ping", forbid_unknown_fields=True):
    """Are you there?"""


_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
_decoder = msgspec.json.Decoder(Resume | List | Subscribe | Ping)


class BadMessage(Exception):
    """The client sent what is not in the contract."""


class LiveSocket(AsyncWebsocketConsumer):
    """What both sockets share: authority at the start, a pump for events, requests one after the other."""

    channel_layer_alias = ""  # no Redis subscription per socket: the hub has one for all
    tenant_id: int

    _pump: asyncio.Task | None = None
    _guard: asyncio.Task | None = None

    async def __call__(self, *connection: Any) -> None:
        try:
            await super().__call__(*connection)
        finally:  # also when the client hung up in the middle of an answer, of which `disconnect` is not told
            beside = [task for task in (self._pump, self._guard) if task]
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def connect(self) -> None:
        self._allowance, self._counted_at = float(BURST), time.monotonic()
        self._wanted: frozenset[str] | None = None
        self._greeted, self._spoken = asyncio.Event(), asyncio.Event()
        self._told = 0  # number of the latest event that this socket was sent
        self._passed: int | None = None  # while resuming: the latest that the pump left to `resume`
        await self.accept()
        try:
            tenant_id = await database.guarded(self.authority)
        except Problem as error:
            await self._close(NO_RIGHT if error.status in (401, 403, 404) else AWAY)
            return
        finally:
            await database.release()
        self.tenant_id = tenant_id
        self._pump = asyncio.create_task(self._feed())
        self._guard = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        """Whoever loses the right loses the socket: keys within a second, people soon."""
        while every := self.recheck:
            await asyncio.sleep(every)
            try:
                async with database.own_connection():  # the one of our context is the socket's
                    if await database.guarded(self.authority) != self.tenant_id:
                        raise Unauthorized
            except Problem as error:
                if error.status in (401, 403, 404):
                    await self._close(NO_RIGHT)
                    return

    @property
    def recheck(self) -> float:
        """Seconds between looks at the right; 0 for what cannot be taken back."""
        return KEY_RECHECK if _header(self, b"authorization") else SESSION_RECHECK

    async def authority(self) -> int:
        """The tenant whose events this socket may see. Raises Unauthorized."""
        raise NotImplementedError

    def query(self, name: str) -> str:
        return parse_qs(self.scope["query_string"].decode("latin1")).get(name, [""])[0]

    # -- Out -------------------------------------------------------------------------------------------------

    async def _feed(self) -> None:
        try:
            async with live.hub().subscribe(self.tenant_id, self.subjects()) as subscription:
                await self.greet()
                self._greeted.set()
                with suppress(TimeoutError):
                    async with asyncio.timeout(OPENING):
                        await self._spoken.wait()
                while True:
                    for event in await subscription.get():
                        await self._pass_on(event)
        except (live.TooSlow, TimeoutError):  # before OSError, of which TimeoutError is one
            telemetry.LIVE_DROPPED.inc()
            await self._close(TOO_SLOW)
        except Problem:
            await self._close(AWAY)
        except OSError:
            pass  # the client hung up
        finally:
            self._greeted.set()

    async def _pass_on(self, event: live.Event) -> None:
        number = self.number(event)
        if self._passed is not None:
            self._passed = max(self._passed, number)
        elif number > self._told and (self._wanted is None or event.subject in self._wanted):
            await self.tell(event)

    def subjects(self) -> frozenset[str] | None:
        return None

    async def greet(self) -> None:
        """Sent first, after the subscription stands."""

    def number(self, event: live.Event) -> int:
        """The sequence that this socket counts by."""
        return event.position

    async def tell(self, event: live.Event) -> None:
        telemetry.LIVE_EVENTS.inc()
        self._told = self.number(event)
        await self._send(b'{"type":"payment","sequence":%d,"payment":%b}' % (self.number(event), event.body))

    async def _send(self, message: bytes) -> None:
        async with asyncio.timeout(SEND_TIMEOUT):
            await self.send(text_data=message.decode())

    async def _close(self, code: int) -> None:
        # Without a limit: a client that reads again must learn that it was left; the server's pings end a dead line.
        with suppress(RuntimeError):
            await self.close(code=code)

    # -- In --------------------------------------------------------------------------------------------------

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self._pump is None:
            return
        await self._greeted.wait()
        try:
            await self._answer(self._read(text_data, bytes_data))
        except BadMessage as error:
            await self._send(ENCODER.encode({"type": "error", "detail": str(error)}))
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
        await self._send(ENCODER.encode({"type": "error", "detail": problem.detail, "errors": problem.errors}))

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
            return _decoder.decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise BadMessage(f"not a message of the contract: {str(error)[:200]}") from None

    async def _answer(self, message: Any) -> None:
        match message:
            case Ping():
                await self._send(b'{"type":"pong"}')
            case Resume(after=after):
                await self.resume(after)
            case Subscribe(ids=ids):
                await self.subscribe(ids)
            case List():
                await self.list(message)

    async def resume(self, after: int) -> None:
        """Everything after, in order and once. What is committed meanwhile the pump leaves to us."""
        self._passed = 0
        self._spoken.set()
        try:
            while True:
                before, found = self._passed, await self.past(after)
                if not found and self._passed == before:
                    return
                for event in found:
                    if self._wanted is None or event.subject in self._wanted:
                        await self.tell(event)
                    after = self.number(event)
        except Unavailable:
            await self._close(AWAY)  # what the pump left to us would be missing
        finally:
            self._passed = None

    async def past(self, after: int) -> list[live.Event]:
        """The next events above a number, in order; none when there are no more."""
        raise NotImplementedError

    async def subscribe(self, ids: list[UUID]) -> None:
        raise BadMessage("this socket shows one payment")

    async def list(self, message: List) -> None:
        raise BadMessage("this socket shows one payment")


class PaymentSocket(LiveSocket):
    """One payment, for whoever has its link. Counts by the payment's own sequence."""

    @property
    def recheck(self) -> float:
        return 0 if self.query("token") else super().recheck

    @property
    def correlation_id(self) -> UUID:
        return self.scope["url_route"]["kwargs"]["correlation_id"]

    async def authority(self) -> int:
        if token := self.query("token"):
            tenant_id = links.tenant_of(self.correlation_id, token)
        else:
            tenant_id = (await stream_authority(self)) if _has_credentials(self) else None
        if tenant_id is None or await queries.status_of(tenant_id, self.correlation_id) is None:
            raise Unauthorized
        return tenant_id

    def subjects(self) -> frozenset[str]:
        return frozenset({str(self.correlation_id)})

    def number(self, event: live.Event) -> int:
        return event.sequence

    async def greet(self) -> None:
        if found := await queries.status_of(self.tenant_id, self.correlation_id):
            self._told = found["sequence"]
            await self._send(ENCODER.encode({"type": "payment", "sequence": found["sequence"], "payment": found}))

    async def past(self, after: int) -> list[live.Event]:
        return await events.of_payment(self.tenant_id, self.correlation_id, after)


class StreamSocket(LiveSocket):
    """Everything of a tenant, for its people and its programs. Counts by the tenant's own numbers."""

    async def authority(self) -> int:
        return await stream_authority(self)

    async def past(self, after: int) -> list[live.Event]:
        return await events.since(self.tenant_id, after, READ_AT_ONCE)

    async def subscribe(self, ids: list[UUID]) -> None:
        if len(ids) > SUBSCRIBED_IDS:
            raise BadMessage(f"at most {SUBSCRIBED_IDS} ids")
        self._wanted = frozenset(map(str, ids)) or None
        await self._send(ENCODER.encode({"type": "subscribed", "ids": ids}))

    async def list(self, message: List) -> None:
        limit = LIST_LIMIT if message.limit is None else message.limit
        if not 1 <= limit <= LIST_AT_MOST:
            raise BadMessage(f"limit wants 1 to {LIST_AT_MOST}")
        wanted = message.filter or Filter()
        try:
            start, end = (text and msgspec.convert(text, _Moment, strict=False) for text in (wanted.from_, wanted.to))
        except msgspec.ValidationError:
            raise BadMessage("from and to want times in ISO 8601 with a zone") from None
        try:
            filters = queries.Filters(wanted.status, wanted.processor, start or None, end or None)
        except Invalid as error:
            raise BadMessage(f"processor {error.errors[0]['message']}") from None
        page = await queries.page_of(self.tenant_id, filters, limit=limit)
        await self._send(
            ENCODER.encode({"type": "list", "id": message.id, "items": page["items"], "total": page["total"]})
        )


# -- Who may ------------------------------------------------------------------------------------------------


def _header(socket: LiveSocket, name: bytes) -> str:
    return next((value.decode("latin1") for key, value in socket.scope["headers"] if key == name), "")


def _has_credentials(socket: LiveSocket) -> bool:
    return bool(_header(socket, b"authorization") or _header(socket, b"cookie"))


async def stream_authority(socket: LiveSocket) -> int:
    """By key, by session (from our own pages only), or the open tenant. Raises Unauthorized, Forbidden."""
    if authorization := _header(socket, b"authorization"):
        principal = await access.authenticate(authorization)
        principal.require("read")
        return principal.tenant_id
    _refuse_foreign_pages(socket)
    user = await person_of(socket.scope["session"])
    if user is not None and _header(socket, b"origin"):  # a browser says where its page is from, always
        mine = Membership.async_objects.filter(user_id=user.pk, tenant__status="active")
        if slug := socket.query("tenant"):
            mine = mine.filter(tenant__slug=slug)
        if (tenant_id := await mine.order_by("id").values_list("tenant_id", flat=True).afirst()) is not None:
            return tenant_id
    return (await access.authenticate(None, keyless=True)).tenant_id


def _refuse_foreign_pages(socket: LiveSocket) -> None:
    """Pages of other sites can open sockets, with the visitor's cookies or without. As for HTTP: Raises Forbidden."""
    request = HttpRequest()
    request.META = {"HTTP_HOST": _header(socket, b"host"), "HTTP_ORIGIN": _header(socket, b"origin")}
    try:
        access.refuse_foreign_pages(request)
    except DisallowedHost:
        raise Forbidden from None
