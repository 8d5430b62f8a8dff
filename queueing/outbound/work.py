"""Deliveries as work: claim, sign, send, write the outcome. fanout.py makes the deliveries, retries.py schedules attempts."""

import asyncio
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from queueing.outbound import endpoints, fanout, signing
from queueing.outbound.concurrency import FIRST, MOST, EndpointLimits
from queueing.outbound.retries import GONE, REST_AT_MOST, retry_after, wait_before
from queueing.outbound.signing import Secrets
from queueing.work import entry
from queueing.work.table import WorkTable, register
from registry import telemetry
from registry.data import database
from registry.data.arrays import Bigints, Texts, unless_empty
from registry.data.batching import Batcher
from registry.errors import Problem, Unavailable
from registry.http.client import Answer, AnswerTimeout, BadAddress, BadAnswer, Client, Disconnected, HttpError, NotSent
from registry.http.ssrf import Outside, parted

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "outbound.sql")

SEND_TIMEOUT = 15.0  # seconds for everything: connection, request, whole answer
LEASE = 40.0  # seconds; longer than a send and the writing of its outcome
SETTLE_ROWS = 250  # outcomes per commit
SETTLE_LINGER = 0.01  # seconds between commits of outcomes
WRITE_AGAIN = 0.25  # seconds before outcomes that the database did not take are written again
PATIENCE = 5 * 24 * 3600.0  # seconds of nothing but failures after which an endpoint is switched off
KEEP_ALIVE = 30.0  # seconds that an idle connection to a receiver is kept
CLIENT_KEPT = 60.0  # seconds that an endpoint's client is kept without a delivery
READ_MOST = 16 * 1024  # bytes of an answer that are read; what is longer costs the connection
KEPT_BODY = 2 * 1024  # bytes of them in the log
KEPT_HEADERS, KEPT_HEADER = 20, 200  # headers of an answer in the log, and characters of each
LEARN_EVERY = 5.0  # seconds between looks at who is failing
HEADERS = {"Content-Type": "application/json", "User-Agent": "Registry-Webhooks/1"}

DELIVERIES = register(WorkTable("webhooks", "queueing_webhookdelivery", "closed IS NULL"))


class Due(NamedTuple):
    """A claimed delivery; its fields are the columns of the statement `claim`."""

    tenant_id: int
    delivery_id: int
    endpoint_id: int
    message_id: str
    type: str
    body: str
    number: int
    tries_from: int
    ordered: bool
    created_at: datetime
    uuid: UUID
    url: str
    secrets: bytes
    mode: str


class Try(NamedTuple):
    """The outcome of one attempt."""

    due: Due
    status: str
    wait: float | None  # seconds until the next one
    rest: float | None  # seconds that the whole endpoint wants to be left alone
    error: str  # "": delivered
    signed_at: datetime
    signature: str
    answer: Answer | None
    latency_ms: int


class _Peer:
    """An HTTP client of one endpoint, and its decrypted secrets."""

    def __init__(self, due: Due, outside: Outside) -> None:
        self.url, self.mode, self.sealed = due.url, due.mode, bytes(due.secrets)
        origin, self.target = parted(due.url, tls_only=due.mode == "live")
        self.client = Client(
            origin,
            connections=MOST,
            keep_alive=KEEP_ALIVE,
            largest_body=READ_MOST,
            headers=HEADERS,
            resolve=outside.resolve,
        )
        self.secrets = Secrets.unsealed(due.secrets, place=endpoints.place(due.uuid))
        self.used_at = time.monotonic()

    def serves(self, due: Due) -> bool:
        return (self.url, self.mode, self.sealed) == (due.url, due.mode, bytes(due.secrets))


@entry.register("webhooks")
class Deliveries:
    """The drain's job for webhooks: one per worker process and event loop."""

    table = DELIVERIES

    def __init__(self, *, outside: Outside | None = None) -> None:
        self.wake: Callable[[], None] = lambda: None  # the drain puts its own here
        self.limits = EndpointLimits()
        self.worker_id = 0
        self._outside = outside or Outside()
        self._peers: dict[int, _Peer] = {}
        self._learned = False
        self._tries: Batcher[Try, bool] = Batcher(self._write, max_rows=SETTLE_ROWS, linger=SETTLE_LINGER)

    async def close(self) -> None:
        await self._tries.finish()
        for peer in self._peers.values():
            await peer.client.close()
        self._outside.close()

    # -- Claiming ----------------------------------------------------------------------------------------------

    async def claim(self, worker_id: int, limit: int, room: dict[int, int]) -> list[Due]:
        """Lease up to `limit` deliveries, so many of each endpoint as it may have more in flight."""
        self.worker_id = worker_id
        if not self._learned:
            await database.guarded(self._learn)
        rooms = self.limits.rooms()
        parameters = {
            "limit": limit, "room": FIRST, "endpoints": list(rooms), "rooms": list(rooms.values()),
            "worker": worker_id, "lease": LEASE,
        }  # fmt: skip
        found = [Due._make(row) for row in await database.fetch(SQL["claim"], parameters)]
        for due in found:
            self.limits.begin(due.endpoint_id)
        return found

    async def _learn(self) -> None:
        for (endpoint,) in await database.fetch(SQL["failing"]):
            self.limits.expect_failure(endpoint, SEND_TIMEOUT)
        self._learned = True

    # -- Sending -----------------------------------------------------------------------------------------------

    async def handle(self, due: Due) -> bool:
        """Make the try and write it down; whether the delivery is done for good."""
        telemetry.TENANT.set(due.tenant_id)
        started = time.perf_counter()
        seconds, good = None, False
        try:
            made = await self._try(due)
            seconds, good = time.perf_counter() - started, made.status == "delivered"
        finally:
            self.limits.end(due.endpoint_id, seconds=seconds, good=good)
            if self.limits.full:
                self.wake()
        await self.settle(made)
        return made.status != "pending"

    async def _try(self, due: Due) -> Try:
        started, at = time.perf_counter(), datetime.now(UTC)
        signature, answer, error = "", None, ""
        try:
            peer = await self._peer(due)
            headers = signing.headers(peer.secrets.signing(at), due.message_id, at, due.body)
            signature = headers["webhook-signature"]
            answer = await peer.client.request(
                "POST", peer.target, due.body.encode(), limit=SEND_TIMEOUT, headers=headers
            )
            error = fault_of(answer.status)
        except HttpError as problem:
            error = words_for(problem)
        except Problem as problem:  # the secrets cannot be read
            error = problem.detail
        return verdict(due, at, signature, answer, error, round((time.perf_counter() - started) * 1000))

    async def _peer(self, due: Due) -> _Peer:
        peer = self._peers.get(due.endpoint_id)
        if peer is None or not peer.serves(due):
            before, peer = peer, _Peer(due, self._outside)
            self._peers[due.endpoint_id] = peer
            if before is not None:
                await before.client.close()
        peer.used_at = time.monotonic()
        return peer

    # -- Writing down ------------------------------------------------------------------------------------------

    async def settle(self, made: Try) -> bool:
        """Write it down, for as long as it takes; False when somebody else has taken over the delivery."""
        while True:
            try:
                return await self._tries.submit(made)
            except Unavailable:
                await asyncio.sleep(WRITE_AGAIN)

    async def _write(self, batch: Sequence[Try]) -> list[bool]:
        in_order = sorted(
            {(t.due.tenant_id, t.due.endpoint_id) for t in batch if t.due.ordered and t.status != "pending"}
        )
        if in_order:
            rows = await database.retrying(lambda: self._write_alone(batch, in_order))
        else:
            rows = await database.fetch(SQL["settle"], self._columns(batch))
        done = {(tenant, delivery): overdue for tenant, delivery, overdue, _ in rows}
        if any(freed for *_, freed in rows):
            self.wake()
        for made in batch:
            await self._follow_up(made, done.get((made.due.tenant_id, made.due.delivery_id)))
        return [(made.due.tenant_id, made.due.delivery_id) in done for made in batch]

    async def _write_alone(self, batch: Sequence[Try], endpoints: list[tuple[int, int]]) -> list[database.Row]:
        async with database.transaction() as conn:
            keys = {"tenants": [t for t, _ in endpoints], "ids": [e for _, e in endpoints]}
            await database.rows(conn, SQL["alone"], keys)
            return await database.rows(conn, SQL["settle"], self._columns(batch))

    async def _follow_up(self, made: Try, overdue: bool | None) -> None:
        """Count it; switch an endpoint off that wants nothing more, or has taken nothing for days."""
        if overdue is None:
            return
        _tried("delivered" if not made.error else "failed").inc()
        if made.status == "delivered":
            telemetry.WEBHOOK_LATENCY.observe(max(0.0, (datetime.now(UTC) - made.due.created_at).total_seconds()))
        gone = made.answer is not None and made.answer.status == GONE
        if gone or overdue:
            reason = endpoints.GONE if gone else endpoints.OVERDUE.format(error=made.error)
            with suppress(Unavailable):  # its next failure says so again
                await database.guarded(
                    lambda: endpoints.switch_off(made.due.tenant_id, made.due.endpoint_id, reason=reason)
                )

    def _columns(self, batch: Sequence[Try]) -> dict[str, object]:
        dues = [made.due for made in batch]
        return {
            "worker": self.worker_id,
            "patience": PATIENCE,
            "tenant": Bigints([d.tenant_id for d in dues]),
            "delivery": Bigints([d.delivery_id for d in dues]),
            "number": Bigints([d.number for d in dues]),
            "status": Texts([made.status for made in batch]),
            "wait": unless_empty([made.wait for made in batch]),
            "rest": unless_empty([made.rest for made in batch]),
            "answer": Bigints([made.answer.status if made.answer else 0 for made in batch]),
            "error": Texts([made.error[:300] for made in batch]),
            "signed_at": [made.signed_at for made in batch],
            "signature": Texts([made.signature[:500] for made in batch]),
            "headers": Texts([kept_headers(made.answer) for made in batch]),
            "body": Texts([kept_body(made.answer) for made in batch]),
            "latency": Bigints([made.latency_ms for made in batch]),
        }

    async def hand_back(self, items: Sequence[Due]) -> None:
        """We are leaving: what is in flight may have arrived, and is sent once more by somebody else."""
        await self._tries.finish()
        keys = {
            "worker": self.worker_id,
            "tenant": Bigints([d.tenant_id for d in items]),
            "delivery": Bigints([d.delivery_id for d in items]),
            "number": Bigints([d.number for d in items]),
        }
        await database.fetch(SQL["hand_back"], keys)

    # -- Beside ------------------------------------------------------------------------------------------------

    def background(self) -> list[Callable[[], Awaitable[None]]]:
        return [fanout.spread, self._look_around]

    async def _look_around(self) -> None:
        """Learn whom others found failing; let go of clients that nobody uses."""
        await asyncio.sleep(LEARN_EVERY)
        self.limits.forget()
        await self._learn()
        then = time.monotonic() - CLIENT_KEPT
        for endpoint, peer in list(self._peers.items()):
            if peer.used_at < then:
                del self._peers[endpoint]
                await peer.client.close()


# -- What an answer means ------------------------------------------------------------------------------------


def fault_of(status: int) -> str:
    """Why an answer does not count as delivered; empty for those that do."""
    if 200 <= status < 300:
        return ""
    if 300 <= status < 400:
        return f"answered {status}: redirects are not followed"
    return f"answered {status}: it wants nothing any more" if status == GONE else f"answered {status}"


def words_for(problem: HttpError) -> str:
    """Why no answer came, in words."""
    match problem:
        case AnswerTimeout():
            return f"no whole answer within {SEND_TIMEOUT:.0f} s"
        case Disconnected():
            return f"the connection ended before the answer: {problem}"
        case BadAnswer():
            return f"what came back is not HTTP: {problem}"
        case BadAddress():
            return f"not sent: {problem}"
        case NotSent():
            return f"no connection: {problem}"
    return str(problem)


def verdict(due: Due, at: datetime, signature: str, answer: Answer | None, error: str, latency_ms: int) -> Try:
    """Delivered, dead, or pending with the time until the next try."""
    asked = retry_after(answer.header("retry-after")) if answer is not None and error else None
    gone = answer is not None and answer.status == GONE
    wait = None
    if error and not gone:
        wait = wait_before(due.number - due.tries_from, asked=asked, draw=random.random())
    status = "delivered" if not error else "dead" if wait is None else "pending"
    rest = min(asked, REST_AT_MOST) if asked else None
    return Try(due, status, wait, rest, error, at, signature, answer, latency_ms)


def kept_headers(answer: Answer | None) -> str | None:
    """The answer's headers as JSON, shortened; what a receiver means for a browser is not kept."""
    if answer is None:
        return None
    kept = {
        _clean(name)[:KEPT_HEADER]: _clean(value)[:KEPT_HEADER]
        for name, value in list(answer.headers.items())[:KEPT_HEADERS]
        if name != b"set-cookie"
    }
    return json.dumps(kept)


def kept_body(answer: Answer | None) -> str:
    return "" if answer is None else _clean(answer.body[:KEPT_BODY])


def _clean(text: bytes) -> str:
    return text.decode(errors="replace").replace("\0", "�")


_tried = cache(telemetry.WEBHOOK_TRIES.labels)
