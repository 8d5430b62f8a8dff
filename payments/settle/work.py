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
from typing import NamedTuple

from psycopg import AsyncConnection

from payments import money
from payments.books import events
from payments.processors import KINDS
from payments.processors.base import Account, Outcome, Processor, Result
from payments.routing import routing
from payments.routing.routing import Atlas
from payments.settle import claims
from payments.settle.claims import Found, Routed
from payments.settle.concurrency import Places
from payments.settle.decisions import (
    CERTAIN,
    Claim,
    Settlement,
    after_repeat,
    after_send,
    never_booked,
    still_in_doubt,
    unknown,
)
from payments.states import OPEN, SUCCEEDED, UNCERTAIN, Status
from queueing.work import entry
from queueing.work.table import WorkTable, register
from registry import telemetry
from registry.data import database, live
from registry.data.arrays import Bigints, Texts, unless_empty
from registry.data.batching import Batcher
from registry.errors import Unavailable

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "settle.sql")

LEASE = 30.0  # seconds; longer than a look-up and a send together, and than any pause of ours
SEND_WITHIN = 5.0  # seconds after the claim; a worker that was stopped for longer has been taken for dead meanwhile
NO_ROAD = 0.5  # seconds before a payment that no processor can take is looked at again; behind many such, longer
LOOKS = 10  # claims in a row past such payments, so that those behind them need not wait until all had their turn
WORTH_A_CLAIM = 25  # places that became free, after there were too few, before anything is claimed for them
WRITE_AGAIN = 0.25  # seconds before outcomes that the database did not take are written again
SETTLE_ROWS = 200  # outcomes per commit: larger ones hold the stream's lock for longer than an accept should wait
SETTLE_LINGER = 0.015  # seconds between commits of outcomes: fewer of them leave the machine time for accepting
REPEAT_AFTER = 0.1  # seconds, doubled with each send without an answer, before a payment in doubt is sent once more
DOUBTS_KEPT = 100_000  # payments in doubt whose time we remember; one that is forgotten waits once more
ABANDON_EVERY = 5.0  # seconds between looks for first sends that a worker did not live to settle
POLL_STEP = 0.1  # seconds between looks for endpoints whose health call is due

DOUBTS = SQL["doubts"].format(columns=claims.COLUMNS, joins=claims.JOINS)
SETTLE = SQL["settle"].format(again=SQL["again"])

PAYMENTS = register(WorkTable("payments", "payments_payment", "closed IS NULL", claims.COLUMNS, claims.JOINS))


class _Doubt(NamedTuple):
    """What this worker remembers of a payment in doubt."""

    since: float  # of our monotonic clock: when a send of it ended without an answer last
    silences: int  # sends of this worker without an answer


@entry.register("payments")
class Dispatch:
    """The drain's job for payments: one per worker process and event loop."""

    table = PAYMENTS

    def __init__(self, places: Places | None = None) -> None:
        self.wake: Callable[[], None] = lambda: None  # the drain puts its own here
        self.atlas = Atlas()
        self.places = places or Places()
        self.capacity, self.tenant_room = self.places.places, self.places.of_tenant
        self.worker_id = 0
        self._processors: dict[str, Processor] = {}
        self._open = AsyncExitStack()
        self._taken: list[Claim] = []  # by the claim under way
        self._crowded = False  # the last claim left rows alone for want of places
        self._doubts: dict[tuple[int, int], _Doubt] = {}
        self._asked: dict[str, asyncio.Task[None]] = {}  # endpoints whose health call is under way
        self._settlements: Batcher[Settlement, bool] = Batcher(self._write, max_rows=SETTLE_ROWS, linger=SETTLE_LINGER)

    async def close(self) -> None:
        asked = list(self._asked.values())
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await self._settlements.finish()
        await self._open.aclose()

    # -- Claiming ----------------------------------------------------------------------------------------------

    async def claim(self, worker_id: int, limit: int, room: dict[int, int]) -> list[Claim]:
        """Lease up to `limit` payments, route them and write their attempts down, in one transaction."""
        self.worker_id = worker_id
        return await database.guarded(lambda: self._claim(limit, room, self.atlas.rooms()))

    async def _claim(self, limit: int, room: dict[int, int], narrow: dict[int, int]) -> list[Claim]:
        self._taken = []
        try:
            async with database.transaction() as conn:
                found = await self._claim_doubts(conn, limit, room, narrow)
                room = room | {tenant: min(few, room.get(tenant, few)) for tenant, few in narrow.items()}
                if len(found) < limit:
                    found += await self._claim_due(conn, limit - len(found), room, {c.payment_id for c in found})
                numbered = await database.rows(conn, SQL["begin"], self._beginnings(found)) if found else []
        except BaseException:
            for claim in self._taken:
                self._give_back(claim)
            raise
        self._tell_begun(found, numbered)
        return found

    async def _claim_doubts(
        self, conn: AsyncConnection, limit: int, room: dict[int, int], narrow: dict[int, int]
    ) -> list[Claim]:
        """What is in doubt of tenants that can have nothing, or only a probe, sent now: a look-up needs no road."""
        if not narrow:
            return []
        rooms = [room.get(tenant, self.tenant_room) for tenant in narrow]
        found = await database.rows(conn, DOUBTS, {"tenants": list(narrow), "rooms": rooms, "limit": limit})
        return self._route(found).claims

    async def _claim_due(
        self, conn: AsyncConnection, limit: int, room: dict[int, int], claimed: set[int]
    ) -> list[Claim]:
        """What is due and has a road and a place; what has none is postponed, so that it hides nothing."""
        for look in range(1, LOOKS + 1):
            left = claims.rooms(room, self.atlas, self.places, limit, time.monotonic())
            self._crowded = left is not room
            parameters = {
                "limit": limit, "room": self.tenant_room, "tenants": list(left), "rooms": list(left.values())
            }  # fmt: skip
            # Rows that this transaction has locked already are not skipped.
            found = [row for row in await database.rows(conn, PAYMENTS.claim, parameters) if row[1] not in claimed]
            if not found:
                break
            await self.atlas.learn({row[0] for row in found}, lambda sql, params: database.rows(conn, sql, params))
            routed = self._route(found)
            await self._postpone(conn, routed, NO_ROAD * look)
            if routed.claims:
                return routed.claims
        return []

    async def _postpone(self, conn: AsyncConnection, routed: Routed, seconds: float) -> None:
        if rows := routed.roadless:
            keys = {"tenant": [r.tenant_id for r in rows], "payment": [r.payment_id for r in rows]}
            await database.rows(conn, SQL["postpone"], {**keys, "seconds": seconds})
        if waiting := routed.waiting:
            keys = {"tenant": [r.tenant_id for r, _ in waiting], "payment": [r.payment_id for r, _ in waiting]}
            await database.rows(conn, SQL["wait"], {**keys, "seconds": [seconds for _, seconds in waiting]})

    def _route(self, found: Sequence[database.Row]) -> Routed:
        at = datetime.now(UTC)
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        rows = list(map(Found._make, found))
        routed = claims.route(rows, self.atlas, self.places, now=time.monotonic(), at=at)
        self._taken += routed.claims
        return routed

    def _give_back(self, claim: Claim) -> None:
        endpoint = claim.account.endpoint
        self.places.give_back(claim.tenant_id, endpoint)
        if self._crowded and self.places.left(claim.tenant_id, endpoint) >= WORTH_A_CLAIM:
            self._crowded = False
            self.wake()

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
        try:
            processor = await self._processor(claim.account)
            if claim.sent_before:
                settlement = await self._resolve(processor, claim, started)
            else:
                outcome = await self._send(processor, claim)
                settlement = after_send(claim, outcome, _ms(started))
            await self.settle(settlement)
        finally:
            self._give_back(claim)
        return settlement.status not in OPEN

    async def _send(self, processor: Processor, claim: Claim) -> Outcome:
        started, account = time.monotonic(), claim.account
        if started - claim.taken_at > SEND_WITHIN:
            return Outcome(Result.NOT_BOOKED, code="not_sent_in_time")
        endpoint = self.atlas.endpoints[account.endpoint]
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

    async def _resolve(self, processor: Processor, claim: Claim, started: float) -> Settlement:
        """Find out what became of an earlier send, at the processor it went to."""
        looked_up = await processor.look_up(claim.order, claim.account)
        if looked_up.result in CERTAIN or looked_up.result is Result.DECLINED:
            return after_send(claim, looked_up, _ms(started))
        if looked_up.result is Result.NOT_BOOKED and self._doubt_is_over(claim):
            return never_booked(claim, _ms(started))
        endpoint = self.atlas.endpoints[claim.account.endpoint]
        if not self._repeats(claim) or not endpoint.admits(claim.account.id, time.monotonic()):
            return still_in_doubt(claim, looked_up, _ms(started))
        return after_repeat(claim, await self._send(processor, claim), _ms(started))

    def _doubt_is_over(self, claim: Claim) -> bool:
        """As of the claim, by the database's clock and by ours that cannot be stepped: what is looked up after it is late
        enough. A worker that was cut off may have sent until SEND_WITHIN after its own claim."""
        limit = claim.account.longest_delay
        return claim.in_doubt_for > limit and time.monotonic() - self._doubt(claim).since > limit

    def _repeats(self, claim: Claim) -> bool:
        """Whether to send it once more. Each send without an answer renews the doubt: they get rarer until it is over."""
        doubt = self._doubt(claim)
        pause = REPEAT_AFTER * 2 ** min(doubt.silences - 1, 16) if doubt.silences else 0.0
        return time.monotonic() - doubt.since >= pause

    def _doubt(self, claim: Claim) -> "_Doubt":
        return self._doubts.setdefault((claim.tenant_id, claim.payment_id), _Doubt(claim.taken_at, 0))

    def _remember_doubt(self, settlement: Settlement) -> None:
        key = (settlement.claim.tenant_id, settlement.claim.payment_id)
        if settlement.status is not UNCERTAIN:
            self._doubts.pop(key, None)
        elif settlement.in_doubt_since is None:  # a new send of unknown outcome
            if len(self._doubts) >= DOUBTS_KEPT:
                self._doubts.pop(next(iter(self._doubts)))
            before = self._doubts.get(key)
            self._doubts[key] = _Doubt(time.monotonic(), before.silences + 1 if before else 1)

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
        """Ask those whose call is due; one that takes its time to answer holds up no other."""
        accounts = {a.endpoint: a for a in self.atlas.polled() if a.endpoint not in self._asked}
        for key in await routing.elect(list(accounts)) if accounts else ():
            self._asked[key] = asyncio.create_task(self._ask(accounts[key]))
        await asyncio.sleep(POLL_STEP)

    async def _ask(self, account: Account) -> None:
        try:
            if health := await (await self._processor(account)).health(account):
                self.atlas.endpoints[account.endpoint].said(health, time.monotonic())
                await routing.note(account.endpoint, health)
        except Unavailable:
            pass  # the next call says it again
        finally:
            del self._asked[account.endpoint]


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
