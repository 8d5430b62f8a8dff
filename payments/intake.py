"""The hot way in: many payments, one commit. Routing and sending live in dispatch.py."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import psycopg

from payments import events
from payments.errors import DifferentContent
from payments.states import Status
from registry import database, live, telemetry
from registry.batching import Batcher
from registry.errors import Unavailable
from registry.sync import sync_twin

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "intake.sql")

WAKE_EVERY = 0.02  # seconds: at most that many hints to the drains, however many commits


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A payment as its sender wants it, checked and in minor units."""

    tenant_id: int
    correlation_id: UUID
    amount: int
    currency: str
    description: str = ""
    metadata: dict[str, Any] | None = None
    processor: str = ""
    scheduled_for: datetime | None = None
    priority: int = 0


class Receipt(msgspec.Struct, frozen=True):
    """A durable payment."""

    created_at: datetime
    replayed: bool


class _Row(msgspec.Struct, frozen=True):
    order: Order
    fingerprint: bytes


_content = msgspec.msgpack.Encoder(order="deterministic")


def fingerprint(order: Order) -> bytes:
    """16 bytes that stand for the content of an order: the same content, the same bytes, for ever."""
    content = (
        order.amount,
        order.currency,
        order.description,
        order.metadata or None,
        order.processor,
        order.scheduled_for,
        order.priority,
    )
    return hashlib.blake2b(_content.encode(content), digest_size=16).digest()


async def submit(order: Order) -> Receipt:
    """Make `order` durable, or find it so. Raises DifferentContent (409), Unavailable (503)."""
    outcome = await _batcher().submit(_Row(order, fingerprint(order)))
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


async def submit_many(orders: Sequence[Order]) -> list[Receipt | DifferentContent | Unavailable]:
    """`submit` for up to a thousand at once: one verdict per order, in order."""
    batcher = _batcher()
    return list(await asyncio.gather(*(batcher.submit(_Row(order, fingerprint(order))) for order in orders)))


submit_sync = sync_twin(submit)

type _Verdict = Receipt | DifferentContent | Unavailable
_batchers: dict[asyncio.AbstractEventLoop, Batcher[_Row, _Verdict]] = {}


def _batcher() -> Batcher[_Row, _Verdict]:
    loop = asyncio.get_running_loop()
    found = _batchers.get(loop)
    if found is None:
        found = _batchers[loop] = Batcher(_write)
    return found


async def _write(batch: Sequence[_Row]) -> list[_Verdict]:
    started = time.perf_counter()
    accepted = {(t, c): (at, position) for t, c, at, position in await database.fetch(SQL["accept"], _columns(batch))}
    telemetry.ACCEPT_BATCH.observe(len(batch))
    telemetry.ACCEPT_SECONDS.observe(time.perf_counter() - started)
    verdicts: list[Any] = []
    told, open_keys = [], []
    for row in batch:
        key = (row.order.tenant_id, row.order.correlation_id)
        fresh = accepted.pop(key, None)
        if fresh is None:
            verdicts.append(None)
            open_keys.append(key)
            continue
        at, position = fresh
        verdicts.append(Receipt(at, replayed=False))
        told.append(_event(row.order, at, position))
    if told:
        _ACCEPTED.inc(len(told))
        live.tell(told)
        _wake()
    if open_keys:
        return _judge(batch, verdicts, await _existing(open_keys))
    return verdicts


_ACCEPTED = telemetry.ACCEPTED.labels("new")
_REPLAYED = telemetry.ACCEPTED.labels("replayed")
_CONFLICTED = telemetry.ACCEPTED.labels("conflict")


def _columns(batch: Sequence[_Row]) -> dict[str, list]:
    orders = [row.order for row in batch]
    return {
        "tenant": [o.tenant_id for o in orders],
        "correlation": [o.correlation_id for o in orders],
        "fingerprint": [row.fingerprint for row in batch],
        "amount": [o.amount for o in orders],
        "currency": [o.currency for o in orders],
        "description": [o.description for o in orders],
        "metadata": [_json(o.metadata) if o.metadata else None for o in orders],
        "wanted": [o.processor for o in orders],
        "run_at": [o.scheduled_for for o in orders],
        "priority": [o.priority for o in orders],
    }


def _json(data: dict) -> str:
    return msgspec.json.encode(data).decode()


def _event(order: Order, at: datetime, position: int) -> live.Event:
    return events.event(
        tenant=order.tenant_id,
        position=position,
        correlation_id=order.correlation_id,
        status=Status.QUEUED.value,
        amount=order.amount,
        currency=order.currency,
        processor=None,
        attempts=0,
        updated_at=at,
        sequence=1,
    )


async def _existing(keys: list[tuple[int, UUID]]) -> dict[tuple[int, UUID], tuple[bytes, datetime]]:
    params = {"tenant": [t for t, _ in keys], "correlation": [c for _, c in keys]}
    return {(t, c): (bytes(mark), at) for t, c, mark, at, *_ in await database.fetch(SQL["existing"], params)}


def _judge(batch: Sequence[_Row], verdicts: list, existing: dict) -> list[_Verdict]:
    """Same id: the same content is a replay, other content a conflict."""
    for n, row in enumerate(batch):
        if verdicts[n] is None:
            found = existing.get((row.order.tenant_id, row.order.correlation_id))
            if found is None:
                verdicts[n] = Unavailable("the tenant was purged at this very moment; try again")
                continue
            mark, at = found
            same = mark == row.fingerprint
            verdicts[n] = Receipt(at, replayed=True) if same else DifferentContent()
            (_REPLAYED if same else _CONFLICTED).inc()
    return verdicts


# -- Waking the drains -----------------------------------------------------------------------------------


class _Waker:
    """Sends the hint at once, then at most every WAKE_EVERY; what came meanwhile gets one more."""

    def __init__(self) -> None:
        self.wanted = False
        self.task: asyncio.Task | None = None

    def wake(self) -> None:
        self.wanted = True
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        try:
            while self.wanted:
                self.wanted = False
                async with database.connection() as conn:
                    await conn.execute(SQL["wake"])
                await asyncio.sleep(WAKE_EVERY)
        except (psycopg.Error, Unavailable) as error:
            log.debug("drains not woken, they look for themselves", extra={"error": repr(error)})
        finally:
            self.task = None


_wakers: dict[asyncio.AbstractEventLoop, _Waker] = {}


def _wake() -> None:
    _wakers.setdefault(asyncio.get_running_loop(), _Waker()).wake()
