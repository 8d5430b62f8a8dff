"""Deliveries as work: claim, sign, send, write the outcome. fanout.py makes the deliveries, retries.py schedules attempts."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Self

from psycopg import AsyncConnection

from queueing.outbound import endpoints, fanout, outcomes, signing
from queueing.outbound.concurrency import FIRST, MOST, EndpointLimits
from queueing.outbound.outcomes import Due, Try
from queueing.outbound.retries import GONE
from queueing.outbound.signing import Secrets
from queueing.work import entry
from queueing.work.opened import Opened
from queueing.work.table import WorkTable, register
from queueing.work.work import DUE_AT_MOST, Routed, Work
from registry import telemetry
from registry.data import database
from registry.data.arrays import Bigints
from registry.data.database import Row
from registry.errors import Problem, Unavailable
from registry.http.client import Client, HttpError
from registry.http.ssrf import Outside, parted

SQL = database.statements(Path(__file__).parent / "sql" / "outbound.sql")

SEND_TIMEOUT = 15.0  # seconds for everything: connection, request, whole answer
PATIENCE = 5 * 24 * 3600.0  # seconds of nothing but failures after which an endpoint is switched off
KEEP_ALIVE = 30.0  # seconds that an idle connection to a receiver is kept
CLIENT_KEPT = 60.0  # seconds that an endpoint's client is kept without a delivery
READ_MOST = 16 * 1024  # bytes of an answer that are read; what is longer costs the connection
LEARN_EVERY = 5.0  # seconds between looks at who is failing
HEADERS = {"Content-Type": "application/json", "User-Agent": "Registry-Webhooks/1"}

DELIVERIES = register(WorkTable("webhooks", "queueing_webhookdelivery", "closed IS NULL"))


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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    def serves(self, due: Due) -> bool:
        return (self.url, self.mode, self.sealed) == (due.url, due.mode, bytes(due.secrets))


@entry.register("webhooks")
class Deliveries(Work[Due, Try]):
    """The work of delivering webhooks. A claim is divided between endpoints, so that one with a long backlog or slow answers
    has no more in flight than another."""

    table = DELIVERIES
    lease = 40.0  # longer than a send and the writing of its outcome
    in_transaction = False
    settle_rows = 250
    settle_linger = 0.01
    room = FIRST

    def __init__(self, *, outside: Outside | None = None) -> None:
        super().__init__()
        self.limits = EndpointLimits()
        self._outside = outside or Outside()
        self._peers: Opened[int, _Peer] = Opened(keep=CLIENT_KEPT)
        self._tenants: dict[int, int] = {}  # of endpoints with due deliveries
        self._learned = False

    async def close(self) -> None:
        await super().close()
        await self._peers.close()
        self._outside.close()

    # -- Claiming ----------------------------------------------------------------------------------------------

    def share_of(self, item: Due) -> int:
        return item.endpoint_id

    def rooms(self, limit: int) -> dict[int, int]:
        return self.limits.rooms()

    async def due(self) -> list[int]:
        if not self._learned:
            await self._learn()
        rows = await database.fetch(SQL["due"], {"limit": DUE_AT_MOST}, repeatable=False)
        self._tenants = {endpoint: tenant for tenant, endpoint in rows}
        return list(self._tenants)

    async def take(self, conn: AsyncConnection, quotas: dict[int, int]) -> list[Row]:
        parameters = {
            "tenants": [self._tenants[endpoint] for endpoint in quotas], "endpoints": list(quotas),
            "quotas": list(quotas.values()), "worker": self.worker_id, "lease": self.lease,
        }  # fmt: skip
        return await database.rows(conn, SQL["take"], parameters)

    def route(self, rows: Sequence[Row]) -> Routed[Due]:
        items = [Due._make(row) for row in rows]
        for due in items:
            self.limits.begin(due.endpoint_id)
        return Routed(items)

    async def _learn(self) -> None:
        for (endpoint,) in await database.fetch(SQL["failing"]):
            self.limits.expect_failure(endpoint, SEND_TIMEOUT)
        self._learned = True

    # -- Sending -----------------------------------------------------------------------------------------------

    async def send(self, items: Sequence[Due]) -> list[Try]:
        return [await self._deliver(due) for due in items]

    async def _deliver(self, due: Due) -> Try:
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
        return made

    async def _try(self, due: Due) -> Try:
        started, at = time.perf_counter(), datetime.now(UTC)
        signature, answer, error = "", None, ""
        try:
            peer = await self._peers.get(
                due.endpoint_id, lambda: _Peer(due, self._outside), fits=lambda peer: peer.serves(due)
            )
            headers = signing.headers(peer.secrets.signing(at), due.message_id, at, due.body)
            signature = headers["webhook-signature"]
            answer = await peer.client.request(
                "POST", peer.target, due.body.encode(), limit=SEND_TIMEOUT, headers=headers
            )
            error = outcomes.fault_of(answer.status)
        except HttpError as problem:
            error = outcomes.words_for(problem, within=SEND_TIMEOUT)
        except Problem as problem:  # the secrets cannot be read
            error = problem.detail
        latency = round((time.perf_counter() - started) * 1000)
        return outcomes.verdict(due, at, signature, answer, error, latency)

    # -- Settling ----------------------------------------------------------------------------------------------

    async def settle(self, batch: Sequence[Try]) -> list[Row]:
        in_order = sorted(
            {(t.due.tenant_id, t.due.endpoint_id) for t in batch if t.due.ordered and t.status != "pending"}
        )
        if in_order:
            return await database.retrying(lambda: self._settle_alone(batch, in_order))
        return await database.fetch(SQL["settle"], self._columns(batch))

    async def _settle_alone(self, batch: Sequence[Try], of: list[tuple[int, int]]) -> list[Row]:
        async with database.transaction() as conn:
            keys = {"tenants": [t for t, _ in of], "ids": [e for _, e in of]}
            await database.rows(conn, SQL["alone"], keys)
            return await database.rows(conn, SQL["settle"], self._columns(batch))

    def _columns(self, batch: Sequence[Try]) -> dict[str, object]:
        return {"worker": self.worker_id, "patience": PATIENCE, **outcomes.columns(batch)}

    async def settled(self, written: Sequence[tuple[Try, Row]]) -> None:
        if any(freed for _, (*_, freed) in written):
            self.look_anew()
            self.wake()
        for made, (_, _, overdue, _) in written:
            _tried("delivered" if not made.error else "failed").inc()
            if made.status == "delivered":
                latency = (datetime.now(UTC) - made.due.created_at).total_seconds()
                telemetry.WEBHOOK_LATENCY.observe(max(0.0, latency))
            await self._switch_off(made, overdue=overdue)

    async def _switch_off(self, made: Try, *, overdue: bool) -> None:
        """Switch off an endpoint that wants nothing more, or has taken nothing for days."""
        gone = made.answer is not None and made.answer.status == GONE
        if gone or overdue:
            reason = endpoints.GONE if gone else endpoints.OVERDUE.format(error=made.error)
            with suppress(Unavailable):  # its next failure says so again
                await database.guarded(
                    lambda: endpoints.switch_off(made.due.tenant_id, made.due.endpoint_id, reason=reason)
                )

    def is_done(self, outcome: Try, written: bool) -> bool:
        return outcome.status != "pending"

    async def give_back(self, items: Sequence[Due]) -> None:
        """They may have arrived, and are sent once more by somebody else."""
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
        """Learn whom others found failing; close clients that nobody uses."""
        await asyncio.sleep(LEARN_EVERY)
        self.limits.forget()
        await self._learn()
        await self._peers.close_idle()


_tried = cache(telemetry.WEBHOOK_TRIES.labels)
