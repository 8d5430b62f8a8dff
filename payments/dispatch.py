"""The hot way out: claim → route → write down → send → settle. Which processor, routing.py says; what follows, decisions.py.

What is sent was written down before (attempt, processor, requestedAt). An outcome that is unknown, be it for a time-out,
a reset or the death of a worker, is settled at the same processor with the same requestedAt before anything else.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import AsyncConnection

from payments import events, money, routing
from payments.decisions import (
    CERTAIN,
    Claim,
    Settlement,
    after_repeat,
    after_send,
    never_booked,
    still_in_doubt,
    unknown,
)
from payments.processors import KINDS
from payments.processors.base import Account, Outcome, Processor, Result
from payments.routing import Atlas, Road
from payments.states import OPEN, PROCESSING, QUEUED, SUCCEEDED, UNCERTAIN, Status
from queueing.drain import TENANT_ROOM
from queueing.work import WorkTable, register
from registry import database, live, telemetry
from registry.arrays import Bigints, Texts, unless_empty
from registry.batching import Batcher
from registry.errors import Unavailable

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "dispatch.sql")

LEASE = 30.0  # seconds; longer than a look-up and a send together, and than any pause of ours
SEND_WITHIN = 5.0  # seconds after the claim; a worker that was stopped for longer has been taken for dead meanwhile
NO_ROAD = 0.5  # seconds before a payment that no processor can take is looked at again; behind many such, longer
LOOKS = 10  # claims in a row past such payments, so that those behind them need not wait until all had their turn
WRITE_AGAIN = 0.25  # seconds before outcomes that the database did not take are written again
SETTLE_ROWS = 200  # outcomes per commit: larger ones hold the stream's lock for longer than an accept should wait
SETTLE_LINGER = 0.015  # seconds between commits of outcomes: fewer of them leave the machine time for accepting
DOUBTS_KEPT = 100_000  # payments in doubt whose time we remember; one that is forgotten waits once more
ABANDON_EVERY = 5.0  # seconds between looks for first sends that a worker did not live to settle
POLL_STEP = 0.25  # seconds between looks for endpoints whose health call is due

_COLUMNS = """p.tenant_id, p.id, p.correlation_id, p.amount, p.currency, p.status, p.attempt, p.tries_from, p.wanted_processor,
    coalesce(greatest(p.in_doubt_since, p.leased_until), now()), p.created_at, a.processor_id, a.requested_at,
    extract(epoch FROM now() - coalesce(greatest(p.in_doubt_since, p.leased_until), now()))::float8,
    p.description, p.method, coalesce(a.reference, ''), p.canceling, p.leased_until IS NULL AND p.in_doubt_since IS NOT NULL"""
# A settlement clears leased_until: where it stands, the last attempt was cut off, and doubt begins anew at its end.
_JOINS = "LEFT JOIN payments_attempt a ON a.tenant_id = p.tenant_id AND a.payment_id = p.id AND a.number = p.attempt"

DOUBTS = SQL["doubts"].format(columns=_COLUMNS, joins=_JOINS)
SETTLE = SQL["settle"].format(again=SQL["again"])

PAYMENTS = register(WorkTable("payments", "payments_payment", "closed IS NULL", _COLUMNS, _JOINS))


class Found(NamedTuple):
    """A row of a claim, in the order of _COLUMNS."""

    tenant_id: int
    payment_id: int
    correlation_id: UUID
    amount: int
    currency: str
    status: str
    attempt: int
    tries_from: int
    wanted: str
    doubted_since: datetime
    created_at: datetime
    processor_id: int  # of the last attempt, as requested_at: a fresh payment has neither (None)
    requested_at: datetime
    doubted_for: float
    description: str
    method: dict[str, Any] | None
    reference: str
    canceling: bool
    free: bool  # in doubt, but in no worker's hands that may have been cut off


class Dispatch:
    """The drain's job for payments: one per worker process and event loop."""

    table = PAYMENTS

    def __init__(self) -> None:
        self.atlas = Atlas()
        self.worker_id = 0
        self._processors: dict[str, Processor] = {}
        self._open = AsyncExitStack()
        self._doubts: dict[tuple[int, int], float] = {}  # payments in doubt → since when by our monotonic clock
        self._settlements: Batcher[Settlement, bool] = Batcher(self._write, max_rows=SETTLE_ROWS, linger=SETTLE_LINGER)

    async def close(self) -> None:
        await self._settlements.finish()
        await self._open.aclose()

    # -- Claiming ----------------------------------------------------------------------------------------------

    async def claim(self, worker_id: int, limit: int, room: dict[int, int]) -> list[Claim]:
        """Lease up to `limit` payments, route them and write their attempts down, in one transaction."""
        self.worker_id = worker_id
        return await database.guarded(lambda: self._claim(limit, room, self.atlas.rooms()))

    async def _claim(self, limit: int, room: dict[int, int], narrow: dict[int, int]) -> list[Claim]:
        async with database.transaction() as conn:
            claims = await self._claim_doubts(conn, limit, room, narrow)
            room = room | {tenant: min(few, room.get(tenant, few)) for tenant, few in narrow.items()}
            if len(claims) < limit:
                claims += await self._claim_due(conn, limit - len(claims), room, {c.payment_id for c in claims})
            numbered = await database.rows(conn, SQL["begin"], self._beginnings(claims)) if claims else []
        self._tell_begun(claims, numbered)
        return claims

    async def _claim_doubts(
        self, conn: AsyncConnection, limit: int, room: dict[int, int], narrow: dict[int, int]
    ) -> list[Claim]:
        """What is in doubt of tenants that can have nothing, or only a probe, sent now: a look-up needs no road."""
        if not narrow:
            return []
        rooms = [room.get(tenant, TENANT_ROOM) for tenant in narrow]
        found = await database.rows(conn, DOUBTS, {"tenants": list(narrow), "rooms": rooms, "limit": limit})
        return self._route(found)[0]

    async def _claim_due(
        self, conn: AsyncConnection, limit: int, room: dict[int, int], claimed: set[int]
    ) -> list[Claim]:
        """What is due and has a road; what has none is postponed, so that it hides nothing."""
        parameters = {"limit": limit, "room": TENANT_ROOM, "tenants": list(room), "rooms": list(room.values())}
        for look in range(1, LOOKS + 1):
            # Rows that this transaction has locked already are not skipped.
            found = [row for row in await database.rows(conn, PAYMENTS.claim, parameters) if row[1] not in claimed]
            if not found:
                break
            await self.atlas.learn({row[0] for row in found}, lambda sql, params: database.rows(conn, sql, params))
            claims, roadless = self._route(found)
            if roadless:
                keys = {"tenant": [t for t, _ in roadless], "payment": [p for _, p in roadless]}
                await database.rows(conn, SQL["postpone"], {**keys, "seconds": NO_ROAD * look})
            if claims:
                return claims
        return []

    def _route(self, found: Sequence[database.Row]) -> tuple[list[Claim], list[tuple[int, int]]]:
        now, at = time.monotonic(), datetime.now(UTC)
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        claims, roadless = [], []
        for row in map(Found._make, found):
            fresh = row.status == QUEUED
            if fresh:
                road = routing.choose(self.atlas.of(row.tenant_id), wanted=row.wanted, now=now)
            else:  # sent before, outcome unknown or changed: the same processor, the same requestedAt
                road = self._same_road(row)
            if road is None:
                roadless.append((row.tenant_id, row.payment_id))
                continue
            claims.append(
                Claim(
                    tenant_id=row.tenant_id,
                    payment_id=row.payment_id,
                    correlation_id=row.correlation_id,
                    amount=row.amount,
                    currency=row.currency,
                    status=PROCESSING if fresh or _asked(row) else UNCERTAIN,
                    was=Status(row.status),
                    number=row.attempt + 1,
                    tries=row.attempt + 1 - row.tries_from,
                    account=road.account,
                    reason=road.reason,
                    requested_at=at if fresh else row.requested_at,
                    in_doubt_since=None if fresh else row.doubted_since,
                    in_doubt_for=0.0 if fresh else row.doubted_for,
                    taken_at=now,
                    created_at=row.created_at,
                    description=row.description,
                    method=row.method,
                    reference="" if fresh else row.reference,
                    canceling=row.canceling,
                )
            )
        return claims, roadless

    def _same_road(self, row: Found) -> Road | None:
        account = self.atlas.account(row.tenant_id, row.processor_id)
        why = "it was asked to look again" if _asked(row) else "the outcome of an earlier send is unknown"
        return Road(account, f"same processor: {why}") if account else None

    def _beginnings(self, claims: Sequence[Claim]) -> dict[str, object]:
        return {
            "worker": self.worker_id,
            "lease": LEASE,
            "tenant": Bigints([c.tenant_id for c in claims]),
            "payment": Bigints([c.payment_id for c in claims]),
            "number": Bigints([c.number for c in claims]),
            "status": Texts([c.status.value for c in claims]),
            "changed": [c.status is not c.was for c in claims],
            "processor": Bigints([c.account.id for c in claims]),
            "requested_at": [c.requested_at for c in claims],
            "reason": Texts([c.reason for c in claims]),
            "in_doubt_since": unless_empty([c.in_doubt_since for c in claims]),
            "reference": Texts([c.reference for c in claims]),
        }

    def _tell_begun(self, claims: Sequence[Claim], numbered: Sequence[database.Row]) -> None:
        by_id = {(c.tenant_id, c.payment_id): c for c in claims}
        live.tell(
            [
                _event(by_id[tenant, payment], by_id[tenant, payment].status, *rest)
                for tenant, payment, *rest in numbered
            ]
        )

    # -- Sending -----------------------------------------------------------------------------------------------

    async def handle(self, claim: Claim) -> bool:
        """Make the attempt and settle it; whether the payment is done for good."""
        started = time.perf_counter()
        telemetry.TENANT.set(claim.tenant_id)
        telemetry.PAYMENT.set(str(claim.correlation_id))
        processor = await self._processor(claim.account)
        if claim.sent_before:
            settlement = await self._resolve(processor, claim, started)
        else:
            outcome = await self._send(processor, claim)
            settlement = after_send(claim, outcome, _ms(started))
        await self.settle(settlement)
        return settlement.status not in OPEN

    async def _send(self, processor: Processor, claim: Claim) -> Outcome:
        started = time.perf_counter()
        if time.monotonic() - claim.taken_at > SEND_WITHIN:
            return Outcome(Result.NOT_BOOKED, code="not_sent_in_time")
        outcome = await processor.send(claim.order, claim.account)
        seconds = time.perf_counter() - started
        self.atlas.endpoints[claim.account.endpoint].answered(healthy=outcome.healthy, seconds=seconds)
        _send_seconds(claim.account.kind, outcome.result).observe(seconds)
        return outcome

    async def _resolve(self, processor: Processor, claim: Claim, started: float) -> Settlement:
        """Find out what became of an earlier send, at the processor it went to."""
        looked_up = await processor.look_up(claim.order, claim.account)
        if looked_up.result in CERTAIN or looked_up.result is Result.DECLINED:
            return after_send(claim, looked_up, _ms(started))
        if looked_up.result is Result.NOT_BOOKED and self._doubt_is_over(claim):
            return never_booked(claim, _ms(started))
        if not self.atlas.endpoints[claim.account.endpoint].admits(time.monotonic()):
            return still_in_doubt(claim, looked_up, _ms(started))
        return after_repeat(claim, await self._send(processor, claim), _ms(started))

    def _doubt_is_over(self, claim: Claim) -> bool:
        """As of the claim, by the database's clock and by ours that cannot be stepped: what is looked up after it is late
        enough. A worker that was cut off may have sent until SEND_WITHIN after its own claim."""
        seen = self._doubts.setdefault((claim.tenant_id, claim.payment_id), claim.taken_at)
        limit = claim.account.longest_delay
        return claim.in_doubt_for > limit and time.monotonic() - seen > limit

    def _remember_doubt(self, settlement: Settlement) -> None:
        key = (settlement.claim.tenant_id, settlement.claim.payment_id)
        if settlement.status is not UNCERTAIN:
            self._doubts.pop(key, None)
        elif settlement.in_doubt_since is None:  # a new send of unknown outcome
            if len(self._doubts) >= DOUBTS_KEPT:
                self._doubts.pop(next(iter(self._doubts)))
            self._doubts[key] = time.monotonic()

    async def _processor(self, account: Account) -> Processor:
        found = self._processors.get(account.endpoint)
        if found is None:
            found = self._processors[account.endpoint] = KINDS[account.kind]()
            await self._open.enter_async_context(found)
        return found

    # -- Settling ----------------------------------------------------------------------------------------------

    async def settle(self, settlement: Settlement) -> bool:
        """Write the outcome down, for as long as it takes; False when somebody else has taken over the payment."""
        self._remember_doubt(settlement)
        while True:
            try:
                return await self._settlements.submit(settlement)
            except Unavailable:
                await asyncio.sleep(WRITE_AGAIN)

    async def _write(self, batch: Sequence[Settlement]) -> list[bool]:
        with telemetry.SETTLE_SECONDS.time():
            rows = await database.fetch(SETTLE, self._settlement_columns(batch))
        done = {(tenant, payment): rest for tenant, payment, *rest in rows}
        told, verdicts = [], []
        for s in batch:
            numbered = done.get((s.claim.tenant_id, s.claim.payment_id))
            verdicts.append(numbered is not None)
            if numbered and numbered[0] is not None:
                told.append(_event(s.claim, s.status, *numbered))
            if numbered:
                _settled(s.status).inc()
                if s.status is SUCCEEDED:
                    telemetry.LATENCY.observe(max(0.0, (numbered[2] - s.claim.created_at).total_seconds()))
        live.tell(told)
        return verdicts

    def _settlement_columns(self, batch: Sequence[Settlement]) -> dict[str, object]:
        claims = [s.claim for s in batch]
        return {
            "worker": self.worker_id,
            "tenant": Bigints([c.tenant_id for c in claims]),
            "payment": Bigints([c.payment_id for c in claims]),
            "number": Bigints([c.number for c in claims]),
            "status": Texts([s.status.value for s in batch]),
            "changed": [s.status is not s.claim.status for s in batch],
            "processor": Bigints([c.account.id for c in claims]),
            "requested_at": [c.requested_at for c in claims],
            "fee": Bigints([_fee(s) for s in batch]),
            "outcome": Texts([s.outcome.value for s in batch]),
            "code": Texts([s.code[:50] for s in batch]),
            "detail": Texts([s.detail[:300] for s in batch]),
            "latency": Bigints([s.latency_ms for s in batch]),
            "wait": [s.wait for s in batch],
            "in_doubt_since": unless_empty([s.in_doubt_since for s in batch]),
            "dead": [s.dead for s in batch],
            "reference": Texts([s.reference for s in batch]),
            "action": Texts([json.dumps(s.action) if s.action else None for s in batch]),
            "lease": LEASE,
        }

    async def hand_back(self, items: Sequence[Claim]) -> None:
        """We are leaving: what is in flight may go through, so it is in doubt from now on, and due at once."""
        for claim in items:
            self._settlements.submit(
                unknown(claim, "worker_left", "The worker left before the answer came", 0, wait=0.0)
            )
        await self._settlements.finish()

    # -- Beside ------------------------------------------------------------------------------------------------

    def background(self) -> list[Callable[[], Awaitable[None]]]:
        return [self._share, self._poll, self._abandon]

    async def _share(self) -> None:
        await self.atlas.share()
        # Nothing of theirs is claimed, so that nobody else would notice a processor that was added or switched on.
        await self.atlas.learn(set(self.atlas.rooms()))
        await asyncio.sleep(routing.SYNC_EVERY)

    async def _abandon(self) -> None:
        if narrow := self.atlas.rooms():
            await database.fetch(SQL["abandon"], {"tenants": list(narrow)})
        await asyncio.sleep(ABANDON_EVERY)

    async def _poll(self) -> None:
        accounts = {account.endpoint: account for account in self.atlas.polled()}
        if accounts:
            await asyncio.gather(*(self._ask(accounts[key]) for key in await routing.elect(list(accounts))))
        await asyncio.sleep(POLL_STEP)

    async def _ask(self, account: Account) -> None:
        health = await (await self._processor(account)).health(account)
        if health:
            self.atlas.endpoints[account.endpoint].said(health)
            await routing.note(account.endpoint, health)


def _asked(row: Found) -> bool:
    """Whether lifecycle.look_again brought it here: nobody was cut off, but something happened to it there."""
    return row.status == PROCESSING and row.free


def _fee(settlement: Settlement) -> int:
    claim = settlement.claim
    return money.share(claim.amount, claim.account.fee_ppm) if settlement.fee is None else settlement.fee


def _ms(started: float) -> int:
    return round((time.perf_counter() - started) * 1000)


def _event(claim: Claim, status: Status, position: int, sequence: int, at: datetime) -> live.Event:
    return events.event(
        tenant=claim.tenant_id,
        position=position,
        correlation_id=claim.correlation_id,
        status=status.value,
        amount=claim.amount,
        currency=claim.currency,
        processor=claim.account.name,
        attempts=claim.number,
        updated_at=at,
        sequence=sequence,
    )


_settled = cache(telemetry.SETTLED.labels)
_send_seconds = cache(telemetry.SEND_SECONDS.labels)
