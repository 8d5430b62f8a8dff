"""Receive events of processors: verify the signature and store the event, many with one commit. work.py handles them."""

import logging
import re
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from payments.errors import PaymentError
from payments.inbound.signature import UNKNOWN_SECRET, Signature, WronglySigned, verify
from queueing.work import waking
from registry.data import database, db_breaker
from registry.data.arrays import Bigints, Blobs, Texts
from registry.data.batching import Batcher
from registry.data.cache import Cached
from registry.data.loop import PerLoop
from registry.errors import Unavailable
from registry.telemetry import changes, metrics, traces
from registry.tenants import sampling
from registry.tenants.encryption import Sealed, unseal
from registry.tenants.sampling import TracedObject

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "inbound.sql")

QUEUE = "inbound"
ADDRESS = re.compile(r"([a-z0-9][a-z0-9-]{0,62})\.([-a-zA-Z0-9_]{1,63})\Z")  # tenant's slug and processor's name
BATCH_ROWS = 200  # events per commit: their bodies are kilobytes, and the first one waits for the last
HEADERS_KEPT = 50  # per request
HEADER_KEPT = 1000  # characters of each
SECRET_HEADERS = {b"authorization", b"proxy-authorization", b"cookie"}


class NoEvent(PaymentError):
    """The body is not an event: JSON with id, type and created, as in Stripe's snapshot events."""

    status = 400


# -- Parsing ---------------------------------------------------------------------------------------------


type Word = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\A[!-~]+\Z")]  # printable ASCII


class _Object(msgspec.Struct):
    id: Word | None = None  # a preview of an invoice has none


class _Data(msgspec.Struct):
    object: _Object = msgspec.field(default_factory=_Object)


class EventHead(msgspec.Struct):
    """The fields of an event that are stored as columns, beside the body."""

    id: Word
    type: Annotated[str, Meta(min_length=1, max_length=100, pattern=r"\A[!-~]+\Z")]
    # Seconds since 1970, until the year 9999. Stripe's thin events have a text; no handler takes them.
    created: Annotated[int, Meta(ge=0, le=253_402_300_799)] | Annotated[datetime, Meta(tz=True)]
    livemode: bool = False
    account: Word | None = None
    data: _Data = msgspec.field(default_factory=_Data)


_decode = msgspec.json.Decoder(EventHead).decode


def read_head(body: bytes) -> EventHead:
    """Raises NoEvent (400)."""
    try:
        return _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NoEvent(f"not an event: {str(error)[:200] or 'nested too deeply'}") from None


# -- Account -----------------------------------------------------------------------------------------------


class WebhookAccount(NamedTuple):
    """The processor account of a webhook address, with its signing secrets."""

    tenant_id: int
    processor_id: int
    secrets: tuple[bytes, ...]


async def _load(address: str) -> WebhookAccount | None:
    if not (found := ADDRESS.match(address)):
        return None
    rows = await database.fetch(SQL["account"], {"tenant": found[1], "name": found[2]})
    if not rows:
        return None
    tenant_id, processor_id, sealed = rows[0]
    try:
        secrets = unseal(sealed, place=f"processor {processor_id}").get("webhookSecrets", [])
    except Sealed as error:
        log.error("a processor's secrets cannot be read", extra={"processor": processor_id, "error": error.detail})
        raise Unavailable from None
    return WebhookAccount(tenant_id, processor_id, tuple(secret.encode() for secret in secrets if secret))


_accounts = Cached(_load, while_away=True, hashed=True)


async def admitted(address: str, signature: Signature, body: bytes) -> WebhookAccount:
    """The account of `address`, if one of its secrets signed `body`. Raises WronglySigned (400), Unavailable (503).

    An unknown address is answered like a wrong signature, and as fast.
    """
    account = await _accounts.get(address[:200])
    verify(signature, body, (account.secrets if account else ()) or (UNKNOWN_SECRET,))
    if account is None or not account.secrets:
        raise WronglySigned
    return account


# -- Storing ------------------------------------------------------------------------------------------------


class ReceivedEvent(NamedTuple):
    """An event that is being stored."""

    tenant_id: int
    processor_id: int
    head: EventHead
    body: bytes
    headers: str  # JSON
    source: str
    request_id: str = ""  # for the log

    @property
    def key(self) -> tuple[int, int, str]:
        return self.tenant_id, self.processor_id, self.head.id


async def receive(event: ReceivedEvent) -> bool:
    """Make an event durable; False if it was before. Raises Unavailable (503): the processor sends it again."""
    return await _batchers.get().submit(event)


_batchers: PerLoop[Batcher[ReceivedEvent, bool]] = PerLoop(
    lambda: Batcher(_write, max_rows=BATCH_ROWS), close=Batcher.finish
)


async def _write(batch: Sequence[ReceivedEvent]) -> list[bool]:
    started = time.perf_counter()
    new = {
        tuple(row)
        for row in await db_breaker.attempt(lambda: database.fetch(SQL["receive"], _columns(batch)), patient=True)
    }
    metrics.INBOUND_COMMIT_SECONDS.observe(time.perf_counter() - started)
    if traces.on:
        stored = [traced_event(tenant, id) for tenant, _, id in new]
        sampling.record_commit("receive events", stored, rows=len(batch), began=started)
    if new:
        changes.record(_change(event) for event in {one.key: one for one in batch}.values() if event.key in new)
        waking.wake(QUEUE)
    results = []
    for event in batch:
        fresh = event.key in new
        new.discard(event.key)  # the second of two equal events in a batch is not new
        results.append(fresh)
        _counter(event.source, fresh).inc()
    return results


def _change(event: ReceivedEvent) -> changes.ChangeLine:
    head = event.head
    ids = {"inbound": head.id, "type": head.type, "request_id": event.request_id}
    return changes.change("inbound event", "", "received", tenant=event.tenant_id, why=event.source, **ids)


def traced_event(tenant_id: int, event_id: str) -> TracedObject:
    return TracedObject("inbound_event", tenant_id, event_id)


def _counter(source: str, fresh: bool) -> Any:
    return metrics.INBOUND_RECEIVED.labels(source, "new" if fresh else "known")


def _columns(batch: Sequence[ReceivedEvent]) -> dict[str, Any]:
    heads = [event.head for event in batch]
    return {
        "tenant": Bigints([a.tenant_id for a in batch]),
        "processor": Bigints([a.processor_id for a in batch]),
        "event": Texts([h.id for h in heads]),
        "type": Texts([h.type for h in heads]),
        "object": Texts([h.data.object.id or "" for h in heads]),
        "created": Bigints([seconds(h.created) for h in heads]),
        "account": Texts([h.account or "" for h in heads]),
        "livemode": [h.livemode for h in heads],
        "body": Blobs([a.body for a in batch]),
        "headers": Texts([a.headers for a in batch]),
        "source": Texts([a.source for a in batch]),
    }


def seconds(created: int | datetime) -> int:
    return created if isinstance(created, int) else max(0, int(created.timestamp()))


def kept(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Header fields as JSON, for operators. Without credentials."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name not in SECRET_HEADERS and len(found) < HEADERS_KEPT:
            found[name.decode("latin1")] = value.decode("latin1")[:HEADER_KEPT].replace("\0", "")
    return msgspec.json.encode(found).decode()
