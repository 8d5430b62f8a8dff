"""Refunds as work: claim, store the attempt, send, settle. Requests for refunds: refunds.py.

A refund is sent only to the processor that booked the payment, always under its public id. If a send had no answer, the refund is
looked up at the processor before it is sent again; only one that was certainly never returned gets a new requestedAt.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg import AsyncConnection

from payments.books import events
from payments.processors.base import CanRefund, Outcome, Processor, Result
from payments.refunds import claims
from payments.refunds.claims import DueRefund
from payments.refunds.decisions import (
    RefundClaim,
    RefundSettlement,
    after_repeat,
    after_send,
    never_returned,
    still_in_doubt,
    unknown,
    unsupported,
)
from payments.routing import routing
from payments.routing.work import ProcessorWork
from payments.states import REFUND_TERMINAL, RefundStatus
from queueing.work import entry
from queueing.work.table import WorkTable, register
from queueing.work.work import PublicId, Routed
from registry.data import clock, database, live
from registry.data.arrays import Bigints, Texts, Uuids, unless_empty
from registry.data.database import Row
from registry.errors import Unavailable
from registry.telemetry import changes, context, metrics
from registry.telemetry.export import Attributes
from registry.tenants.sampling import TracedObject

SQL = database.statements(Path(__file__).parent / "sql" / "refunds.sql")

NO_ROUTE = 0.5  # seconds before a refund whose processor is away is looked at again

REFUNDS = register(
    WorkTable("refunds", "payments_refund", "closed IS NULL", SQL["columns"], SQL["joins"], "created_at")
)
BY_ID = database.filled(SQL, "by_id", columns=SQL["columns"], joins=SQL["joins"])


@entry.register("refunds")
class RefundWork(ProcessorWork[RefundClaim, RefundSettlement]):
    """The work of sending refunds."""

    table = REFUNDS
    # Per tenant. Stripe takes 100 requests a second per account, and a processor that becomes slow must not get more requests at
    # the same time, or all of them would time out.
    share_limit = 50
    send_within = (
        5.0  # seconds after the claim; if the worker was stopped for longer, its lease may have been taken over
    )
    write_again = (
        Unavailable,
        psycopg.errors.UniqueViolation,
    )  # a report of the processor was booked at the same moment

    # -- Claiming ----------------------------------------------------------------------------------------------

    async def take_by_id(self, conn: AsyncConnection, ids: Sequence[PublicId]) -> dict[PublicId, Row]:
        keys = {"tenant": Bigints([t for t, _ in ids]), "public": Uuids([r.bytes for _, r in ids])}
        return {(row[0], row[3]): row for row in await database.rows(conn, BY_ID, keys)}

    def route(self, rows: Sequence[Row]) -> Routed[RefundClaim]:
        now, at = time.monotonic(), clock.now()
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        ready, postponed = [], []
        for row in map(DueRefund._make, rows):
            account = self.routes.account(row.tenant_id, row.processor_id)
            # A refund in doubt is looked up even while its processor is unavailable.
            if account is None or (
                row.status == RefundStatus.OWED and not self.routes.endpoints[account.endpoint].admits(account.id, now)
            ):
                postponed.append(row)
            else:
                ready.append(claims.claimed(row, account, at, now))
        return Routed(ready, postponed)

    async def postpone(self, conn: AsyncConnection, postponed: Sequence[DueRefund], number: int) -> None:
        keys = {"tenant": [r.tenant_id for r in postponed], "refund": [r.refund_id for r in postponed]}
        await database.rows(conn, SQL["postpone"], {**keys, "seconds": NO_ROUTE})

    async def begin(self, conn: AsyncConnection, items: Sequence[RefundClaim]) -> list[Row]:
        return await database.rows(conn, SQL["begin"], self._beginnings(items))

    def after_begin(self, items: Sequence[RefundClaim], rows: Sequence[Row]) -> Iterable[changes.ChangeLine]:
        return (self._change(claim, claim.was, claim.status) for claim in items if claim.status is not claim.was)

    def _change(self, claim: RefundClaim, was: RefundStatus, to: RefundStatus, **fields: Any) -> changes.ChangeLine:
        return changes.change(
            "refund",
            was.value,
            to.value,
            tenant=claim.tenant_id,
            payment=claim.order.payment_id,
            refund=claim.order.refund_id,
            attempt=claim.number,
            processor=claim.account.name,
            **fields,
        )

    def _beginnings(self, claims: Sequence[RefundClaim]) -> dict[str, object]:
        return {
            "worker": self.worker_id,
            "lease": self.lease,
            "tenant": Bigints([c.tenant_id for c in claims]),
            "refund": Bigints([c.refund_id for c in claims]),
            "number": Bigints([c.number for c in claims]),
            "status": Texts([c.status.value for c in claims]),
            "requested_at": [c.order.requested_at for c in claims],
            "in_doubt_since": unless_empty([c.in_doubt_since for c in claims]),
        }

    # -- Sending -----------------------------------------------------------------------------------------------

    def in_doubt(self, item: RefundClaim) -> bool:
        return item.status is not RefundStatus.PROCESSING

    async def send(self, items: Sequence[RefundClaim]) -> list[RefundSettlement]:
        return [await self._at_processor(claim, self._send_first) for claim in items]

    async def resolve(self, items: Sequence[RefundClaim]) -> list[RefundSettlement]:
        return [await self._at_processor(claim, self._resolve) for claim in items]

    async def _at_processor(
        self, claim: RefundClaim, act: Callable[[CanRefund, RefundClaim], Awaitable[RefundSettlement]]
    ) -> RefundSettlement:
        context.TENANT.set(claim.tenant_id)
        context.PAYMENT.set(str(claim.order.payment_id))
        processor: Processor = await self.processor(claim.account)
        return await act(processor, claim) if isinstance(processor, CanRefund) else unsupported(claim)

    async def _send_first(self, processor: CanRefund, claim: RefundClaim) -> RefundSettlement:
        return after_send(claim, await self._send(processor, claim))

    async def _send(self, processor: CanRefund, claim: RefundClaim) -> Outcome:
        started, account = time.monotonic(), claim.account
        if started - claim.taken_at > self.send_within:
            return Outcome(Result.NOT_BOOKED, code="not_sent_in_time")
        outcome = await processor.refund(claim.order, account)
        now = time.monotonic()
        endpoint = self.routes.endpoints[account.endpoint]
        endpoint.answered(0, account, claim.refund_id, outcome, ms=(now - started) * 1000, now=now)
        return outcome

    async def _resolve(self, processor: CanRefund, claim: RefundClaim) -> RefundSettlement:
        """Look up an earlier send before anything is sent again."""
        looked_up = await processor.look_up_refund(claim.order, claim.account)
        if looked_up.result in (Result.BOOKED, Result.DECLINED, Result.CANCELED):
            return after_send(claim, looked_up)
        if looked_up.result is not Result.NOT_BOOKED:  # no clear answer: send nothing
            return still_in_doubt(claim, looked_up)
        if claim.in_doubt_for > claim.account.longest_delay:
            return never_returned(claim)
        if not self.routes.endpoints[claim.account.endpoint].admits(claim.account.id, time.monotonic()):
            return still_in_doubt(claim, looked_up)
        return after_repeat(claim, await self._send(processor, claim))

    # -- Settling ----------------------------------------------------------------------------------------------

    async def settle(self, outcomes: Sequence[RefundSettlement]) -> list[Row]:
        return await database.fetch(SQL["settle"], self._settlement_columns(outcomes))

    def changed(self, outcome: RefundSettlement, row: Row) -> changes.ChangeLine:
        *_, status, detail = row  # not the outcome's where the money was booked from a report already
        return self._change(outcome.claim, outcome.claim.status, RefundStatus(status), why=detail or outcome.code)

    async def after_settle(self, written: Sequence[tuple[RefundSettlement, Row]]) -> None:
        told = []
        for _, (tenant, _, *event, status, _) in written:
            _settled(status).inc()
            if event[0] is not None:
                told.append(events.from_row((tenant, *event)))
        live.publish(told)

    def is_done(self, outcome: RefundSettlement, written: bool) -> bool:
        return written and outcome.status in REFUND_TERMINAL

    async def give_back(self, items: Sequence[RefundClaim]) -> None:
        """The sends may still succeed: the refunds are in doubt from now on, and due at once."""
        left = Outcome(Result.UNKNOWN, code="worker_left")
        await self.write_once([unknown(claim, left, wait=0.0) for claim in items])

    def _settlement_columns(self, batch: Sequence[RefundSettlement]) -> dict[str, object]:
        claims = [v.claim for v in batch]
        return {
            "worker": self.worker_id,
            "tenant": Bigints([c.tenant_id for c in claims]),
            "payment": Bigints([c.payment_id for c in claims]),
            "refund": Bigints([c.refund_id for c in claims]),
            "processor": Bigints([c.account.id for c in claims]),
            "number": Bigints([c.number for c in claims]),
            "status": Texts([v.status.value for v in batch]),
            "code": Texts([v.code[:50] for v in batch]),
            "detail": Texts([v.detail[:300] for v in batch]),
            "reference": Texts([v.reference[:255] for v in batch]),
            "wait": [v.wait for v in batch],
            "in_doubt_since": unless_empty([v.in_doubt_since for v in batch]),
            "stopped": [v.stopped for v in batch],
        }

    # -- Traces --------------------------------------------------------------------------------------------------

    def traced_as(self, item: RefundClaim) -> TracedObject:
        return TracedObject("refund", item.tenant_id, item.order.refund_id)

    def described(self, outcome: RefundSettlement) -> Attributes:
        claim = outcome.claim
        failed = outcome.status not in (RefundStatus.RETURNED, RefundStatus.PROCESSING)
        return {
            "registry.payment.id": str(claim.order.payment_id),
            "registry.processor": claim.account.name,
            "registry.processor.kind": claim.account.kind,
            "registry.attempt": claim.number,
            "registry.status": outcome.status.value,
            "error.type": outcome.code or outcome.status.value if failed else "",
        }

    # -- Background ----------------------------------------------------------------------------------------------

    def background(self) -> list[Callable[[], Awaitable[None]]]:
        return [self._read_shared]

    async def _read_shared(self) -> None:
        await self.routes.read_shared()  # and write nothing: the outcome of refunds says nothing about payments
        await asyncio.sleep(routing.SYNC_EVERY)


_settled = cache(metrics.REFUNDS.labels)
