"""Paying debts back: claim → write down → send → settle, as payments/settle/work.py does for payments. Asking for refunds: debts.py.

A refund has one name for ever, its public id, and goes to the processor that booked the payment and nowhere else. Whatever
was sent and not answered is looked up there before it is sent again; only what was certainly never returned is stamped anew.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

from payments.books import events
from payments.processors import KINDS
from payments.processors.base import Account, Debt, GivesBack, Outcome, Processor, Result
from payments.refunds.decisions import (
    Claim,
    Verdict,
    after_repeat,
    after_send,
    cannot,
    never_returned,
    still_in_doubt,
    unknown,
)
from payments.routing import routing
from payments.routing.routing import Atlas
from payments.states import REFUND_TERMINAL, RefundStatus
from queueing.work import entry
from queueing.work.drain import TENANT_ROOM
from queueing.work.table import WorkTable, register
from registry import telemetry
from registry.data import database, live
from registry.data.arrays import Bigints, Texts, unless_empty
from registry.data.batching import Batcher
from registry.errors import Unavailable

SQL = database.statements(Path(__file__).parent / "sql" / "refunds.sql")

LEASE = 30.0  # seconds; longer than a look-up and a send together, and than any pause of ours
SEND_WITHIN = 5.0  # seconds after the claim; a worker that was stopped for longer has been taken for dead meanwhile
AT_ONCE = 50  # refunds of one tenant in flight per worker: Stripe takes 100 requests a second from an account, and a processor
# that gets slower must not get more at the same time, or nobody would have an answer before giving up
NO_ROAD = 0.5  # seconds before a debt whose processor is away is looked at again
WRITE_AGAIN = 0.25  # seconds before outcomes that the database did not take are written again
SETTLE_ROWS = 200  # outcomes per commit, as for payments
SETTLE_LINGER = 0.015  # seconds between commits of outcomes: they share the streams' locks with payments

_COLUMNS = """p.tenant_id, p.payment_id, p.id, p.public_id, y.correlation_id, p.amount, p.currency, p.reason, p.reference,
    p.status, p.attempt, p.tries_from, p.processor_id, p.requested_at,
    coalesce(greatest(p.in_doubt_since, p.leased_until), now()), p.created_at,
    extract(epoch FROM now() - coalesce(greatest(p.in_doubt_since, p.leased_until), now()))::float8,
    coalesce((SELECT a.reference FROM payments_attempt a
        WHERE a.tenant_id = p.tenant_id AND a.payment_id = p.payment_id AND a.reference <> ''
        ORDER BY a.number DESC LIMIT 1), '')"""
_JOINS = "JOIN payments_payment y ON y.tenant_id = p.tenant_id AND y.id = p.payment_id"

REFUNDS = register(WorkTable("refunds", "payments_refund", "closed IS NULL", _COLUMNS, _JOINS))


class Found(NamedTuple):
    """A row of a claim, in the order of _COLUMNS."""

    tenant_id: int
    payment_id: int
    refund_id: int
    public_id: UUID
    correlation_id: UUID
    amount: int
    currency: str
    reason: str
    reference: str
    status: str
    attempt: int
    tries_from: int
    processor_id: int
    requested_at: datetime | None  # of a debt that was never sent
    doubted_since: datetime
    created_at: datetime
    doubted_for: float
    payment_reference: str


@entry.register("refunds")
class RefundDispatch:
    """The drain's job for refunds: one per worker process and event loop."""

    table = REFUNDS

    def __init__(self) -> None:
        self.atlas = Atlas()
        self.worker_id = 0
        self._processors: dict[str, Processor] = {}
        self._open = AsyncExitStack()
        self._verdicts: Batcher[Verdict, bool] = Batcher(self._write, max_rows=SETTLE_ROWS, linger=SETTLE_LINGER)

    async def close(self) -> None:
        await self._verdicts.finish()
        await self._open.aclose()

    # -- Claiming ----------------------------------------------------------------------------------------------

    async def claim(self, worker_id: int, limit: int, room: dict[int, int]) -> list[Claim]:
        """Lease up to `limit` refunds whose processors can be asked, and write their attempts down, in one transaction."""
        self.worker_id = worker_id
        return await database.guarded(lambda: self._claim(limit, room))

    async def _claim(self, limit: int, room: dict[int, int]) -> list[Claim]:
        rooms = [max(AT_ONCE - (TENANT_ROOM - left), 0) for left in room.values()]
        parameters = {"limit": limit, "room": AT_ONCE, "tenants": list(room), "rooms": rooms}
        async with database.transaction() as conn:
            return await self._take(conn, await database.rows(conn, REFUNDS.claim, parameters))

    async def _take(self, conn: AsyncConnection, rows: Sequence[database.Row]) -> list[Claim]:
        """Of these rows, which the transaction has locked, those whose processors can be asked; written down."""
        found = [Found._make(row) for row in rows]
        if not found:
            return []
        await self.atlas.learn({row.tenant_id for row in found}, lambda sql, params: database.rows(conn, sql, params))
        claims, roadless = self._route(found)
        if roadless:
            keys = {"tenant": [r.tenant_id for r in roadless], "refund": [r.refund_id for r in roadless]}
            await database.rows(conn, SQL["postpone"], {**keys, "seconds": NO_ROAD})
        if claims:
            await database.rows(conn, SQL["begin"], self._beginnings(claims))
        return claims

    def _route(self, found: Sequence[Found]) -> tuple[list[Claim], list[Found]]:
        now, at = time.monotonic(), datetime.now(UTC)
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        claims, roadless = [], []
        for row in found:
            account = self.atlas.account(row.tenant_id, row.processor_id)
            # What is in doubt is asked about whether or not anything may be sent.
            if account is None or (
                row.status == RefundStatus.OWED and not self.atlas.endpoints[account.endpoint].admits(account.id, now)
            ):
                roadless.append(row)
            else:
                claims.append(_claimed(row, account, at, now))
        return claims, roadless

    def _beginnings(self, claims: Sequence[Claim]) -> dict[str, object]:
        return {
            "worker": self.worker_id,
            "lease": LEASE,
            "tenant": Bigints([c.tenant_id for c in claims]),
            "refund": Bigints([c.refund_id for c in claims]),
            "number": Bigints([c.number for c in claims]),
            "status": Texts([c.status.value for c in claims]),
            "requested_at": [c.debt.requested_at for c in claims],
            "in_doubt_since": unless_empty([c.in_doubt_since for c in claims]),
        }

    # -- Sending -----------------------------------------------------------------------------------------------

    async def handle(self, claim: Claim) -> bool:
        """Make the attempt and settle it; whether the refund is done for good."""
        telemetry.TENANT.set(claim.tenant_id)
        telemetry.PAYMENT.set(str(claim.debt.payment_id))
        processor = await self._processor(claim.account)
        if not isinstance(processor, GivesBack):
            verdict = cannot(claim)
        elif claim.status is RefundStatus.PROCESSING:
            verdict = after_send(claim, await self._send(processor, claim))
        else:
            verdict = await self._resolve(processor, claim)
        return await self.settle(verdict) and verdict.status in REFUND_TERMINAL

    async def _send(self, processor: GivesBack, claim: Claim) -> Outcome:
        started, account = time.monotonic(), claim.account
        if started - claim.taken_at > SEND_WITHIN:
            return Outcome(Result.NOT_BOOKED, code="not_sent_in_time")
        outcome = await processor.refund(claim.debt, account)
        now = time.monotonic()
        endpoint = self.atlas.endpoints[account.endpoint]
        endpoint.answered(0, account, claim.refund_id, outcome, ms=(now - started) * 1000, now=now)
        return outcome

    async def _resolve(self, processor: GivesBack, claim: Claim) -> Verdict:
        """Find out what became of an earlier send before anything is sent again."""
        looked_up = await processor.look_up_refund(claim.debt, claim.account)
        if looked_up.result in (Result.BOOKED, Result.DECLINED, Result.CANCELED):
            return after_send(claim, looked_up)
        if looked_up.result is not Result.NOT_BOOKED:  # the books cannot be read: nothing is sent on a guess
            return still_in_doubt(claim, looked_up)
        if claim.in_doubt_for > claim.account.longest_delay:
            return never_returned(claim)
        if not self.atlas.endpoints[claim.account.endpoint].admits(claim.account.id, time.monotonic()):
            return still_in_doubt(claim, looked_up)
        return after_repeat(claim, await self._send(processor, claim))

    async def _processor(self, account: Account) -> Processor:
        found = self._processors.get(account.endpoint)
        if found is None:
            found = self._processors[account.endpoint] = KINDS[account.kind]()
            await self._open.enter_async_context(found)
        return found

    # -- Settling ----------------------------------------------------------------------------------------------

    async def settle(self, verdict: Verdict) -> bool:
        """Write the outcome down, for as long as it takes; False when somebody else has taken over the refund."""
        while True:
            try:
                return await self._verdicts.submit(verdict)
            except (Unavailable, psycopg.errors.UniqueViolation):  # the processor's own word came at the same moment
                await asyncio.sleep(WRITE_AGAIN)

    async def _write(self, batch: Sequence[Verdict]) -> list[bool]:
        rows = await database.fetch(SQL["settle"], self._verdict_columns(batch))
        done = {(tenant, refund): event for tenant, refund, *event in rows}
        told, written = [], []
        for v in batch:
            event = done.get((v.claim.tenant_id, v.claim.refund_id))
            written.append(event is not None)
            if event is not None:
                _settled(v.status.value).inc()
                if event[0] is not None:
                    told.append(events.from_row((v.claim.tenant_id, *event)))
        live.tell(told)
        return written

    def _verdict_columns(self, batch: Sequence[Verdict]) -> dict[str, object]:
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

    async def hand_back(self, items: Sequence[Claim]) -> None:
        """We are leaving: what is in flight may go through, so it is in doubt from now on, and due at once."""
        for claim in items:
            self._verdicts.submit(unknown(claim, Outcome(Result.UNKNOWN, code="worker_left"), wait=0.0))
        await self._verdicts.finish()

    # -- Beside ------------------------------------------------------------------------------------------------

    def background(self) -> list[Callable[[], Awaitable[None]]]:
        return [self._share]

    async def _share(self) -> None:
        await self.atlas.hear()  # that refunds fail, or work, says nothing of payments
        await asyncio.sleep(routing.SYNC_EVERY)


def _claimed(row: Found, account: Account, at: datetime, now: float) -> Claim:
    fresh = row.status == RefundStatus.OWED
    return Claim(
        tenant_id=row.tenant_id,
        payment_id=row.payment_id,
        refund_id=row.refund_id,
        debt=Debt(
            refund_id=row.public_id,
            payment_id=row.correlation_id,
            payment_reference=row.payment_reference,
            amount=row.amount,
            currency=row.currency,
            reason=row.reason,
            requested_at=row.requested_at or at,
            tenant_id=row.tenant_id,
            reference=row.reference,
        ),
        status=RefundStatus.PROCESSING if fresh else RefundStatus.UNCERTAIN,
        number=row.attempt + 1,
        tries=row.attempt + 1 - row.tries_from,
        account=account,
        in_doubt_since=None if fresh else row.doubted_since,
        in_doubt_for=0.0 if fresh else row.doubted_for,
        taken_at=now,
        created_at=row.created_at,
    )


_settled = cache(telemetry.REFUNDS.labels)
