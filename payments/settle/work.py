"""Payments as work: claim, route, store the attempt, send, settle. routing.py chooses the processor, decisions.py what follows.

Attempt, processor and requestedAt are stored before anything is sent. If the outcome of a send is unknown (a time-out, a reset,
a worker that died), the payment is settled at the same processor, with the same requestedAt, before anything else.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

from psycopg import AsyncConnection

from payments.processors.base import WORKED, Outcome, Processor, Result
from payments.routing import routing
from payments.routing.polls import Polls
from payments.routing.work import ProcessorWork
from payments.settle import claims, parameters, slow
from payments.settle.claims import DuePayment
from payments.settle.concurrency import Slots
from payments.settle.decisions import (
    CERTAIN,
    PaymentClaim,
    Settlement,
    after_repeat,
    after_send,
    never_booked,
    still_in_doubt,
    unknown,
)
from payments.settle.doubts import Doubts
from payments.states import OPEN, SUCCEEDED
from queueing.work import entry
from queueing.work.pools import DIVIDED
from queueing.work.table import WorkTable, register
from queueing.work.work import PublicId, Routed
from registry.data import clock, database, live
from registry.data.arrays import Bigints, Uuids
from registry.data.database import Row
from registry.telemetry import changes, context, metrics
from registry.telemetry.export import Attributes
from registry.tenants.sampling import TracedObject

SQL = database.statements(Path(__file__).parent / "sql" / "settle.sql")

NO_ROUTE = 0.5  # seconds until a payment is routed again if no processor is available; longer behind many such
SLOTS_WORTH_A_CLAIM = 25  # free slots that start a claim after there were too few
ABANDON_EVERY = 5.0  # seconds between checks for first sends of workers that died

# Since when it waits for us. One that waited for its payer, or for the sender's capture, is `processing` and in doubt since then
# (look_again in lifecycle.sql): days of that are no delay of ours.
ACCEPTED = "coalesce(CASE WHEN status = 'processing' THEN in_doubt_since END, scheduled_for, created_at)"
PAYMENTS = register(WorkTable("payments", "payments_payment", "closed IS NULL", SQL["columns"], SQL["joins"], ACCEPTED))
IN_DOUBT = database.filled(SQL, "in_doubt", columns=SQL["columns"], joins=SQL["joins"])
TAKE_DIVIDED = database.filled(SQL, "take_divided", columns=SQL["columns"], joins=SQL["joins"])
BY_ID = database.filled(SQL, "by_id", columns=SQL["columns"], joins=SQL["joins"])
SETTLE = database.filled(SQL, "settle", again=SQL["again"])
DIVIDED["payments"] = bool  # a processor may be added later


@entry.register("payments")
class PaymentWork(ProcessorWork[PaymentClaim, Settlement]):
    """The work of sending payments."""

    table = PAYMENTS
    rounds = 10  # so that payments behind many without a route need not wait until all of those were routed
    send_within = (
        5.0  # seconds after the claim; if the worker was stopped for longer, its lease may have been taken over
    )

    def __init__(self, slots: Slots | None = None) -> None:
        super().__init__()
        self.slots = slots or Slots()
        self.capacity, self.share_limit = self.slots.total, self.slots.of_tenant
        self._narrow: dict[int, int] = {}  # tenants of which only a probe, or nothing, can be sent now, and how many
        self._crowded = False  # the last claim skipped rows because slots were scarce
        self._doubts = Doubts()
        self._polls = Polls(self.routes, self.processor)

    async def close(self) -> None:
        await self._polls.close()
        await super().close()
        self.routes.endpoints.clear()
        self.routes.publish_pace()  # a process that lives on measures nothing any more

    # -- Claiming ----------------------------------------------------------------------------------------------

    def share_of(self, item: PaymentClaim) -> int:
        return item.tenant_id

    def free_by_share(self, limit: int) -> dict[int, int]:
        free = super().free_by_share(limit)
        self._narrow = self.routes.send_limits()
        for tenant, few in self._narrow.items():
            free[tenant] = min(few, free.get(tenant, few))
        narrowed = claims.free_by_tenant(free, self.routes, self.slots, limit, time.monotonic())
        self._crowded = narrowed is not free
        return narrowed

    def claims_first(self) -> bool:
        return bool(self._narrow)

    async def claim_first(self, conn: AsyncConnection, limit: int) -> Sequence[PaymentClaim]:
        """Claim payments in doubt of tenants that can send nothing, or only a probe: a look-up needs no route."""
        if not self._narrow:
            return []
        free = [self.share_limit - self.in_flight_of[tenant] for tenant in self._narrow]
        mine = claims.in_doubt(self._narrow, self.routes, self.division)
        asked = {"tenants": list(self._narrow), "free": free, "limit": limit, **mine}
        rows = await database.rows(conn, IN_DOUBT, asked)
        return self.route(rows).items

    async def take(self, conn: AsyncConnection, quotas: dict[int, int]) -> list[Row]:
        if not self.division.is_divided("payments"):
            return await super().take(conn, quotas)
        await self.load_routes(conn, set(quotas))
        asked = claims.divided(quotas, self.routes, self.division, time.monotonic())
        return await database.rows(conn, TAKE_DIVIDED, {**asked, "above": self.shares.above})

    async def take_by_id(self, conn: AsyncConnection, ids: Sequence[PublicId]) -> dict[PublicId, Row]:
        keys = {"tenant": Bigints([t for t, _ in ids]), "correlation": Uuids([c.bytes for _, c in ids])}
        rows = await database.rows(conn, BY_ID, keys)
        if self.division.is_divided("payments"):
            await self.load_routes(conn, {row[0] for row in rows})
            now = time.monotonic()
            rows = [row for row in rows if claims.is_mine(DuePayment._make(row), self.routes, self.division, now)]
        return {(row[0], row[2]): row for row in rows}

    def route(self, rows: Sequence[Row]) -> Routed[PaymentClaim]:
        at = clock.now()
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        return claims.route(list(map(DuePayment._make, rows)), self.routes, self.slots, now=time.monotonic(), at=at)

    async def postpone(
        self, conn: AsyncConnection, postponed: Sequence[tuple[DuePayment, float | None]], number: int
    ) -> None:
        if rows := [row for row, seconds in postponed if seconds is None]:
            await database.rows(conn, SQL["postpone"], {**parameters.keys(rows), "seconds": NO_ROUTE * number})
        if waits := [seconds for _, seconds in postponed if seconds is not None]:
            rows = [row for row, seconds in postponed if seconds is not None]
            await database.rows(conn, SQL["wait"], {**parameters.keys(rows), "seconds": waits})

    async def begin(self, conn: AsyncConnection, items: Sequence[PaymentClaim]) -> list[Row]:
        begins = {"worker": self.worker_id, "lease": self.lease, **parameters.begins(items)}
        return await database.rows(conn, SQL["begin"], begins)

    def after_begin(self, items: Sequence[PaymentClaim], rows: Sequence[Row]) -> Iterable[changes.ChangeLine]:
        by_id = {claim.key: claim for claim in items}
        told = [(by_id[tenant, payment], rest) for tenant, payment, *rest in rows]
        live.publish([parameters.event(claim, claim.status, *rest) for claim, rest in told])
        return (parameters.change(claim, claim.was, claim.status, why=claim.reason) for claim, _ in told)

    def release(self, items: Sequence[PaymentClaim]) -> None:
        super().release(items)
        for claim in items:
            self._release_slot(claim)

    def _release_slot(self, claim: PaymentClaim) -> None:
        endpoint = claim.account.endpoint
        self.slots.release(claim.tenant_id, endpoint)
        if self._crowded and self.slots.free(claim.tenant_id, endpoint) >= SLOTS_WORTH_A_CLAIM:
            self._crowded = False
            self.wake()

    # -- Sending -----------------------------------------------------------------------------------------------

    def in_doubt(self, item: PaymentClaim) -> bool:
        return item.sent_before

    async def send(self, items: Sequence[PaymentClaim]) -> list[Settlement]:
        return [self._doubts.remember(await self._send_first(claim)) for claim in items]

    async def resolve(self, items: Sequence[PaymentClaim]) -> list[Settlement]:
        return [self._doubts.remember(await self._resolve(claim)) for claim in items]

    async def _send_first(self, claim: PaymentClaim) -> Settlement:
        started = _start(claim)
        outcome = await self._send(await self.processor(claim.account), claim)
        return after_send(claim, outcome, _ms(started))

    async def _resolve(self, claim: PaymentClaim) -> Settlement:
        """Look up an earlier send at its processor."""
        started = _start(claim)
        processor = await self.processor(claim.account)
        looked_up = await processor.look_up(claim.order, claim.account)
        if looked_up.result in CERTAIN or looked_up.result is Result.DECLINED:
            return after_send(claim, looked_up, _ms(started))
        if looked_up.result is Result.NOT_BOOKED and self._doubts.is_over(claim):
            return never_booked(claim, _ms(started))
        endpoint = self.routes.endpoints[claim.account.endpoint]
        if not self._doubts.may_repeat(claim) or not endpoint.admits(claim.account.id, time.monotonic()):
            return still_in_doubt(claim, looked_up, _ms(started))
        return after_repeat(claim, await self._send(processor, claim), _ms(started))

    async def _send(self, processor: Processor, claim: PaymentClaim) -> Outcome:
        started, account = time.monotonic(), claim.account
        if started - claim.taken_at > self.send_within:
            return Outcome(Result.NOT_BOOKED, code="not_sent_in_time")
        endpoint = self.routes.endpoints[account.endpoint]
        number = (
            0 if claim.sent_before else endpoint.sent(account, started)
        )  # a repeat may be answered without any work
        try:
            outcome = await processor.send(claim.order, account)
        except BaseException:
            endpoint.lost(number, account)
            raise
        now = time.monotonic()
        endpoint.answered(number, account, claim.payment_id, outcome, ms=(now - started) * 1000, now=now)
        _send_seconds(account.kind, outcome.result).observe(now - started)
        return outcome

    # -- Settling ----------------------------------------------------------------------------------------------

    async def settle(self, outcomes: Sequence[Settlement]) -> list[Row]:
        settles = {"worker": self.worker_id, "lease": self.lease, **parameters.settles(outcomes)}
        with metrics.SETTLE_SECONDS.time():
            return await database.fetch(SETTLE, settles)

    def changed(self, outcome: Settlement, row: Row) -> changes.ChangeLine:
        claim, position = outcome.claim, row[2]
        # Without a number of an event it kept its state: looked up once more, in vain or because it changed meanwhile.
        to = claim.status if position is None else outcome.status
        return parameters.change(claim, claim.status, to, why=outcome.detail, ms=outcome.latency_ms)

    async def after_settle(self, written: Sequence[tuple[Settlement, Row]]) -> None:
        told = []
        for s, (_, _, position, sequence, at) in written:
            _settled(s.status).inc()
            if position is not None:
                told.append(parameters.event(s.claim, s.status, position, sequence, at))
            if s.status is SUCCEEDED:
                metrics.LATENCY.observe(max(0.0, (at - s.claim.created_at).total_seconds()))
            slow.after_settle(s, at)
        live.publish(told)

    def is_done(self, outcome: Settlement, written: bool) -> bool:
        return outcome.status not in OPEN

    async def give_back(self, items: Sequence[PaymentClaim]) -> None:
        """The sends may still succeed: the payments are in doubt from now on, and due at once."""
        left = "The worker stopped before the answer arrived"
        await self.write_once([unknown(claim, "worker_left", left, 0, wait=0.0) for claim in items])

    # -- Traces --------------------------------------------------------------------------------------------------

    def traced_as(self, item: PaymentClaim) -> TracedObject:
        return TracedObject("payment", item.tenant_id, item.correlation_id)

    def described(self, outcome: Settlement) -> Attributes:
        claim = outcome.claim
        return {
            "registry.processor": claim.account.name,
            "registry.processor.kind": claim.account.kind,
            "registry.attempt": claim.number,
            "registry.attempt.outcome": outcome.outcome.value,
            "registry.status": outcome.status.value,
            "error.type": "" if outcome.outcome in WORKED else outcome.code or outcome.outcome.value,
        }

    # -- Background ----------------------------------------------------------------------------------------------

    def background(self) -> list[Callable[[], Awaitable[None]]]:
        return [self._share, self._polls.step, self._abandon]

    async def _share(self) -> None:
        await self.routes.share()
        self.routes.publish_pace()
        # Nothing of these tenants is claimed, so that only this notices a processor that was added or enabled.
        await self.routes.load(set(self.routes.send_limits()))
        await asyncio.sleep(routing.SYNC_EVERY)

    async def _abandon(self) -> None:
        if narrow := self.routes.send_limits():
            await database.fetch(SQL["abandon"], {"tenants": list(narrow)})
        await asyncio.sleep(ABANDON_EVERY)


def _start(claim: PaymentClaim) -> float:
    """Put the payment into this task's logs and spans; time.perf_counter()."""
    context.TENANT.set(claim.tenant_id)
    context.PAYMENT.set(str(claim.correlation_id))
    return time.perf_counter()


def _ms(started: float) -> int:
    return round((time.perf_counter() - started) * 1000)


_settled = cache(metrics.SETTLED.labels)
_send_seconds = cache(metrics.SEND_SECONDS.labels)
