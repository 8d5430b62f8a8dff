"""Deliveries as work: claim, sign, send, settle. fanout.py makes the deliveries, retries.py schedules attempts."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Self

from psycopg import AsyncConnection

from queueing.outbound import endpoints, fanout, job_secret, outcomes
from queueing.outbound.concurrency import FIRST, MOST, EndpointLimits
from queueing.outbound.outcomes import DeliveryClaim, DeliverySettlement
from queueing.outbound.retries import GONE
from queueing.outbound.signing import Secrets
from queueing.outbound.sources import source_of
from queueing.work import entry
from queueing.work.opened import Opened
from queueing.work.table import WorkTable, register
from queueing.work.work import Routed, Work
from registry.data import clock, database
from registry.data.arrays import Bigints
from registry.data.database import Row
from registry.errors import Problem, Unavailable
from registry.http import signatures
from registry.http.client import Client, HttpError
from registry.http.ssrf import Outside, parted
from registry.telemetry import changes, context, metrics
from registry.telemetry.export import Attributes
from registry.tenants.sampling import TracedObject

SQL = database.statements(Path(__file__).parent / "sql" / "outbound.sql")

SEND_TIMEOUT = 15.0  # seconds for everything: connection, request, whole answer
PATIENCE = 5 * 24 * 3600.0  # seconds of failures only, after which an endpoint is disabled
KEEP_ALIVE = 30.0  # seconds that an idle connection to a receiver is kept
CLIENT_KEPT = 60.0  # seconds that an endpoint's client is kept without a delivery
READ_MOST = 16 * 1024  # bytes of an answer that are read; what is longer costs the connection
LEARN_EVERY = 5.0  # seconds between reads of the endpoints that fail
HEADERS = {"Content-Type": "application/json", "User-Agent": "Registry-Webhooks/1"}

DELIVERIES = register(
    WorkTable("webhooks", "queueing_webhookdelivery", "closed IS NULL", takeable=SQL["takeable"], share=itemgetter(2))
)


class _EndpointClient:
    """An HTTP client of one endpoint, and its decrypted secrets."""

    def __init__(self, claim: DeliveryClaim, outside: Outside) -> None:
        self.url, self.mode, self.sealed = claim.url, claim.mode, bytes(claim.secrets)
        origin, self.target = parted(claim.url, tls_only=claim.mode == "live")
        self.http = Client(
            origin,
            connections=MOST,
            keep_alive=KEEP_ALIVE,
            largest_body=READ_MOST,
            headers=HEADERS,
            resolve=outside.resolve,
        )
        self.secrets = _secrets_of(claim)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()

    def serves(self, claim: DeliveryClaim) -> bool:
        return (self.url, self.mode, self.sealed) == (claim.url, claim.mode, bytes(claim.secrets))

    def target_of(self, claim: DeliveryClaim) -> str:
        """The request target. Raises BadAddress for a callback to an address that is not acceptable."""
        if not claim.callback_url:
            return self.target
        return parted(claim.callback_url, tls_only=claim.mode == "live")[1]


def _secrets_of(claim: DeliveryClaim) -> Secrets:
    """Raises Sealed (500)."""
    if claim.callback_url:
        return job_secret.unsealed(claim.tenant_id, claim.secrets)
    return Secrets.unsealed(claim.secrets, place=endpoints.place(claim.uuid))


@entry.register("webhooks")
class DeliveryWork(Work[DeliveryClaim, DeliverySettlement]):
    """The work of delivering webhooks. A share is an endpoint, so that a long backlog or slow answers of one delay no others."""

    table = DELIVERIES
    lease = 40.0  # seconds; longer than a send and its settlement
    in_transaction = False
    settle_rows = 250
    settle_linger = 0.01
    share_limit = FIRST

    def __init__(self, *, outside: Outside | None = None) -> None:
        super().__init__()
        self.limits = EndpointLimits()
        self._outside = outside or Outside()
        self._clients: Opened[int, _EndpointClient] = Opened(keep=CLIENT_KEPT)
        self._tenants: dict[int, int] = {}  # of endpoints with due deliveries
        self._learned = False

    async def close(self) -> None:
        await super().close()
        await self._clients.close()
        self._outside.close()

    # -- Claiming ----------------------------------------------------------------------------------------------

    def share_of(self, item: DeliveryClaim) -> int:
        return item.endpoint_id

    def free_by_share(self, limit: int) -> dict[int, int]:
        return self.limits.free_by_endpoint()

    async def due(self, conn: AsyncConnection) -> list[int]:
        if not self._learned:
            self._learn(await database.rows(conn, SQL["failing"]))
        rows = await database.rows(conn, SQL["due"], self.shares.asked)
        found = {endpoint: tenant for tenant, endpoint in rows}
        if not self.shares.looking:
            self._tenants = found
        return list(found)

    async def take(self, conn: AsyncConnection, quotas: dict[int, int]) -> list[Row]:
        parameters = {
            "tenants": [self._tenants[endpoint] for endpoint in quotas], "endpoints": list(quotas),
            "quotas": list(quotas.values()), "worker": self.worker_id, "lease": self.lease, "above": self.shares.above,
        }  # fmt: skip
        return await database.rows(conn, SQL["take"], parameters)

    def route(self, rows: Sequence[Row]) -> Routed[DeliveryClaim]:
        items = [DeliveryClaim._make(row) for row in rows]
        for claim in items:
            self.limits.begin(claim.endpoint_id)
        return Routed(items)

    def _learn(self, failing: Sequence[Row]) -> None:
        for (endpoint,) in failing:
            self.limits.expect_failure(endpoint, SEND_TIMEOUT)
        self._learned = True

    # -- Sending -----------------------------------------------------------------------------------------------

    async def send(self, items: Sequence[DeliveryClaim]) -> list[DeliverySettlement]:
        return [await self._deliver(claim) for claim in items]

    async def _deliver(self, claim: DeliveryClaim) -> DeliverySettlement:
        context.TENANT.set(claim.tenant_id)
        started = time.perf_counter()
        seconds, good = None, False
        try:
            settlement = await self._attempt(claim)
            seconds, good = time.perf_counter() - started, settlement.status == "delivered"
        finally:
            self.limits.end(claim.endpoint_id, seconds=seconds, good=good)
            if self.limits.full:
                self.wake()
        return settlement

    async def _attempt(self, claim: DeliveryClaim) -> DeliverySettlement:
        started, at = time.perf_counter(), clock.now()
        signature, answer, error = "", None, ""
        try:
            client = await self._clients.get(
                claim.endpoint_id,
                lambda: _EndpointClient(claim, self._outside),
                fits=lambda client: client.serves(claim),
            )
            headers = signatures.headers(client.secrets.signing(at), claim.message_id, at, claim.body)
            signature = headers["webhook-signature"]
            answer = await client.http.request(
                "POST", client.target_of(claim), claim.body.encode(), limit=SEND_TIMEOUT, headers=headers
            )
            error = outcomes.fault_of(answer.status)
        except HttpError as problem:
            error = outcomes.words_for(problem, within=SEND_TIMEOUT)
        except Problem as problem:  # the secrets cannot be read
            error = problem.detail
        latency = round((time.perf_counter() - started) * 1000)
        return outcomes.settlement_of(claim, at, signature, answer, error, latency)

    # -- Settling ----------------------------------------------------------------------------------------------

    async def settle(self, batch: Sequence[DeliverySettlement]) -> list[Row]:
        in_order = sorted(
            {(t.claim.tenant_id, t.claim.endpoint_id) for t in batch if t.claim.ordered and t.status != "pending"}
        )
        if in_order:
            return await database.retrying(lambda: self._settle_ordered(batch, in_order))
        return await database.fetch(SQL["settle"], self._columns(batch))

    async def _settle_ordered(self, batch: Sequence[DeliverySettlement], of: list[tuple[int, int]]) -> list[Row]:
        async with database.transaction() as conn:
            keys = {"tenants": [t for t, _ in of], "ids": [e for _, e in of]}
            await database.rows(conn, SQL["alone"], keys)
            return await database.rows(conn, SQL["settle"], self._columns(batch))

    def _columns(self, batch: Sequence[DeliverySettlement]) -> dict[str, object]:
        return {"worker": self.worker_id, "patience": PATIENCE, **outcomes.columns(batch)}

    def changed(self, outcome: DeliverySettlement, row: Row) -> changes.ChangeLine:
        claim = outcome.claim
        return changes.change(
            "delivery",
            "pending",
            outcome.status,
            tenant=claim.tenant_id,
            delivery=claim.message_id,
            type=claim.type,
            subject=claim.subject,
            endpoint=claim.uuid,
            attempt=claim.number,
            why=outcome.error,
            ms=outcome.latency_ms,
        )

    async def after_settle(self, written: Sequence[tuple[DeliverySettlement, Row]]) -> None:
        if any(freed for _, (*_, freed) in written):
            self.shares.forget()
            self.wake()
        for settlement, (_, _, overdue, _) in written:
            _tried("delivered" if not settlement.error else "failed").inc()
            if settlement.status == "delivered":
                latency = (clock.now() - settlement.claim.created_at).total_seconds()
                metrics.WEBHOOK_LATENCY.observe(max(0.0, latency))
            await self._switch_off(settlement, overdue=overdue)

    async def _switch_off(self, settlement: DeliverySettlement, *, overdue: bool) -> None:
        """Disable an endpoint that answered 410, or has failed for PATIENCE seconds. Receivers of callbacks stay enabled."""
        if settlement.claim.callback_url:
            return
        gone = settlement.answer is not None and settlement.answer.status == GONE
        if gone or overdue:
            reason = endpoints.GONE if gone else endpoints.OVERDUE.format(error=settlement.error)
            with suppress(Unavailable):  # its next failure does it
                await database.faults_as_unavailable(
                    lambda: endpoints.switch_off(
                        settlement.claim.tenant_id, settlement.claim.endpoint_id, reason=reason
                    )
                )

    def is_done(self, outcome: DeliverySettlement, written: bool) -> bool:
        return outcome.status != "pending"

    async def give_back(self, items: Sequence[DeliveryClaim]) -> None:
        """The messages may have arrived; another worker sends them again under the same id."""
        keys = {
            "worker": self.worker_id,
            "tenant": Bigints([d.tenant_id for d in items]),
            "delivery": Bigints([d.delivery_id for d in items]),
            "number": Bigints([d.number for d in items]),
        }
        await database.fetch(SQL["give_back"], keys)

    # -- Traces --------------------------------------------------------------------------------------------------

    def traced_as(self, item: DeliveryClaim) -> TracedObject | None:
        source = source_of(item.type)
        return TracedObject(source.noun, item.tenant_id, item.subject) if source and item.subject else None

    def described(self, outcome: DeliverySettlement) -> Attributes:
        claim = outcome.claim
        return {
            "messaging.message.id": claim.message_id,
            "registry.webhook.type": claim.type,
            "registry.webhook.endpoint.id": str(claim.uuid),
            "registry.attempt": claim.number,
            "registry.status": outcome.status,
            "error.type": str(outcome.answer.status if outcome.answer else "no answer") if outcome.error else "",
        }

    # -- Background ----------------------------------------------------------------------------------------------

    def background(self) -> list[Callable[[], Awaitable[None]]]:
        return [fanout.spread, self._maintain]

    async def _maintain(self) -> None:
        """Learn which endpoints fail at other workers; close unused clients."""
        await asyncio.sleep(LEARN_EVERY)
        self.limits.forget()
        self._learn(await database.fetch(SQL["failing"]))
        await self._clients.close_idle()


_tried = cache(metrics.WEBHOOK_TRIES.labels)
