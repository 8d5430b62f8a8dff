"""The websockets of contract section 3: one payment by its link, and all payments of a tenant."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec

from payments.books import events, payer, queries
from payments.states import Status
from registry.data import live
from registry.edge.api import ENCODER
from registry.edge.live_socket import BadMessage, LiveSocket, Ping, Resume, Subscribe
from registry.errors import Invalid, Unauthorized
from registry.tenants import links
from registry.tenants.sockets import tenant_authority

LIST_LIMIT, LIST_AT_MOST = 50, 200  # payments of a list that names no limit, and of any


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


_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class PaymentsSocket(LiveSocket):
    """Base class of both sockets: the stream of payments and the messages of the contract."""

    stream = events.STREAM
    kind = b"payment"
    decoder = msgspec.json.Decoder(Resume | List | Subscribe | Ping)

    async def answer(self, message: Any) -> None:
        match message:
            case Subscribe(ids=ids):
                await self.subscribe(ids)
            case List():
                await self.list(message)
            case _:
                await super().answer(message)

    async def list(self, message: List) -> None:
        raise BadMessage("this socket shows one payment")


class PaymentSocket(PaymentsSocket):
    """One payment, for everybody who has its link. Events are numbered by the payment's sequence.

    With the link's token it says what a payer may see (payments.books.payer), whoever else the client is.
    """

    view: dict[str, Any] | None = None  # of a payer

    async def subscribe(self, ids: list[UUID]) -> None:
        raise BadMessage("this socket shows one payment")

    @property
    def recheck(self) -> float:
        return 0 if self.query("token") else super().recheck

    @property
    def correlation_id(self) -> UUID:
        return self.scope["url_route"]["kwargs"]["correlation_id"]

    async def authority(self) -> int:
        if token := self.query("token"):
            tenant_id = links.tenant_of(self.correlation_id, token)
            self.view = await payer.view_of(tenant_id, self.correlation_id) if tenant_id else None
            if tenant_id is None or self.view is None:
                raise Unauthorized
            return tenant_id
        # A page of a tenant names it, that of a guest of the open tenant too; an address without either gives no right.
        if not (self.header(b"authorization") or self.header(b"cookie") or self.query("tenant")):
            raise Unauthorized
        tenant_id = await tenant_authority(self)
        if await queries.status_of(tenant_id, self.correlation_id) is None:
            raise Unauthorized
        return tenant_id

    def subjects(self) -> tuple[str, ...]:
        return (str(self.correlation_id),)

    def number(self, event: live.Event) -> int:
        return event.sequence

    async def greet(self) -> None:
        read = queries.status_of if self.view is None else payer.view_of
        if found := await read(self.tenant_id, self.correlation_id):
            self.reader.sent = found["sequence"]
            await self.send_message(
                ENCODER.encode({"type": "payment", "sequence": found["sequence"], "payment": found})
            )

    def message(self, event: live.Event) -> bytes:
        return super().message(event if self.view is None else payer.as_payer(event, self.view))

    async def past(self, after: int) -> list[live.Event]:
        return await self.stream.of_subject(self.tenant_id, self.correlation_id, after)


class StreamSocket(PaymentsSocket):
    """All payments of a tenant, for its members and programs. Events are numbered by the tenant's stream."""

    async def authority(self) -> int:
        return await tenant_authority(self)

    async def list(self, message: List) -> None:
        limit = LIST_LIMIT if message.limit is None else message.limit
        if not 1 <= limit <= LIST_AT_MOST:
            raise BadMessage(f"limit wants 1 to {LIST_AT_MOST}")
        filters = _filters(message.filter or Filter())
        page = await queries.page_of(self.tenant_id, filters, limit=limit)
        await self.send_message(
            ENCODER.encode({"type": "list", "id": message.id, "items": page["items"], "total": page["total"]})
        )


def _filters(wanted: Filter) -> queries.PaymentFilters:
    """Raises BadMessage."""
    try:
        start, end = (text and msgspec.convert(text, _Moment, strict=False) for text in (wanted.from_, wanted.to))
    except msgspec.ValidationError:
        raise BadMessage("from and to want times in ISO 8601 with a zone") from None
    try:
        return queries.PaymentFilters(wanted.status, wanted.processor, start or None, end or None)
    except Invalid as error:
        raise BadMessage(f"processor {error.errors[0]['message']}") from None
