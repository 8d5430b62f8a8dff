"""Simulation of routing in virtual time: real choice, breakers, paces, slots and decisions; simulated clock, database and processors."""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from payments.processors.base import Account, Health, Outcome, Result
from payments.routing.routing import POLL_EVERY, RoutingTable
from payments.settle import claims
from payments.settle.claims import DuePayment
from payments.settle.concurrency import Slots
from payments.settle.decisions import PaymentClaim, after_send
from payments.states import PROCESSING, QUEUED, SUCCEEDED, UNCERTAIN

AT_MOST = 200  # rows per claim, as the drain asks for
CLAIM_EVERY = 0.02  # seconds between claims
COMMIT = 0.006  # seconds from a claim to its sends
GIVES_UP = 6.0  # seconds that an answer is waited for
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Phase:
    """From `at` seconds on a processor answers after `delay` ms, and fails or not."""

    at: float
    delay: float = 5.0
    fails: bool = False


@dataclass
class Played:
    """A processor with a timetable. `says`: what its health call tells of a phase; None: it has none that answers."""

    name: str
    phases: list[Phase]
    says: Callable[[Phase], Health | None] = lambda phase: Health(phase.fails, int(phase.delay))
    spoils: Callable[["Sale"], float | None] = lambda sale: None  # this payment fails after so many ms, whatever is
    booked: set[int] = field(default_factory=set)

    def now(self, at: float) -> Phase:
        return [phase for phase in self.phases if phase.at <= at][-1]


@dataclass
class Sale:
    """A payment, as the database has it."""

    id: int
    tenant: int
    at: float
    run_at: float = 0.0
    status: str = QUEUED
    attempt: int = 0
    account: int = 0
    leased: bool = False
    sent_at: float = 0.0  # first
    first: str = ""  # processor that it was sent to first
    done_at: float | None = None


@dataclass
class Worker:
    routes: RoutingTable
    slots: Slots


@dataclass
class Bed:
    """Tenants (id → payments per second), each with an account at every processor, cheapest first, at these fees."""

    processors: list[Played]
    fees: list[float]
    tenants: dict[int, float]
    seconds: float
    patience: int = 300
    workers: int = 1
    seed: int = 1
    slots: int = 800

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.sales: list[Sale] = []
        self.open: dict[int, Sale] = {}
        self.events: list[tuple[float, int, Callable[[float], None]]] = []
        self.order = itertools.count()
        self.by_account = {
            tenant * 10 + n: played for tenant in self.tenants for n, played in enumerate(self.processors)
        }
        self.crew = [self._worker() for _ in range(self.workers)]

    def _worker(self) -> Worker:
        routes = RoutingTable()
        routes.set_accounts(
            {tenant: [self._account(tenant, n) for n in range(len(self.fees))] for tenant in self.tenants}, 0.0
        )
        if len(self.tenants) > 1:
            for endpoint in routes.endpoints.values():
                endpoint.mark_shared()
        return Worker(routes, Slots(self.slots, self.slots * 3 // 4))

    def _account(self, tenant: int, n: int) -> Account:
        return Account(
            id=tenant * 10 + n, tenant_id=tenant, name=self.processors[n].name, kind="http", url="http://x", options={},
            fee_ppm=round(self.fees[n] * 1e6), enabled=True, endpoint=self.processors[n].name, patience_ms=self.patience,
        )  # fmt: skip

    # -- The run ------------------------------------------------------------------------------------------

    def run(self, *, until: float | None = None) -> "Bed":
        """Play the timetable, then go on until every payment is settled, at most `until` seconds."""
        for tenant, rate in self.tenants.items():
            self._later(self.random.uniform(0, 1 / rate), self._arrival(tenant, rate))
        for worker in self.crew:
            self._later(self.random.uniform(0, CLAIM_EVERY), self._claims(worker))
        for played in self.processors:
            self._later(self.random.uniform(0, POLL_EVERY), self._poll(played))
        end = until or self.seconds + 120
        while self.events:
            now, _, event = heapq.heappop(self.events)
            if now > end or (now > self.seconds and not self.open):
                break
            event(now)
        return self

    def _later(self, at: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self.events, (at, next(self.order), event))

    def _arrival(self, tenant: int, rate: float) -> Callable[[float], None]:
        def arrive(now: float) -> None:
            if now > self.seconds:
                return
            sale = Sale(len(self.sales) + 1, tenant, now, now)
            self.sales.append(sale)
            self.open[sale.id] = sale
            self._later(now + 1 / rate, arrive)

        return arrive

    def _poll(self, played: Played) -> Callable[[float], None]:
        def poll(now: float) -> None:
            said = played.says(played.now(now))
            for worker in self.crew if said else ():
                worker.routes.endpoints[played.name].health_reported(said, now)
            self._later(now + POLL_EVERY, poll)

        return poll

    def _claims(self, worker: Worker) -> Callable[[float], None]:
        def claim(now: float) -> None:
            free = worker.routes.send_limits(now)
            free = claims.free_by_tenant(free, worker.routes, worker.slots, AT_MOST, now)
            due = sorted((s for s in self.open.values() if s.run_at <= now and not s.leased), key=lambda s: s.run_at)
            taken: Counter[int] = Counter()
            found = []
            for sale in due:
                if taken[sale.tenant] < free.get(sale.tenant, AT_MOST) and len(found) < AT_MOST:
                    taken[sale.tenant] += 1
                    found.append(self._found(sale, now))
            routed = claims.route(found, worker.routes, worker.slots, now=now, at=START)
            for row, seconds in routed.postponed:
                self.sales[row.payment_id - 1].run_at = now + (0.5 if seconds is None else seconds)
            for one in routed.items:
                self.sales[one.payment_id - 1].leased = True
                self._later(now + COMMIT, self._send(worker, one))
            self._later(now + CLAIM_EVERY, claim)

        return claim

    def _found(self, sale: Sale, now: float) -> DuePayment:
        return DuePayment(
            sale.tenant, sale.id, UUID(int=sale.id), 1000, "BRL", sale.status, sale.attempt, 0, "", START,
            datetime.now(UTC), sale.account or None, START, 0.0, "", None, "", False, False, now - sale.at,
        )  # fmt: skip

    def _send(self, worker: Worker, claim: PaymentClaim) -> Callable[[float], None]:
        def send(now: float) -> None:
            sale, played = self.sales[claim.payment_id - 1], self.by_account[claim.account.id]
            sale.attempt, sale.account = claim.number, claim.account.id
            if not sale.first:
                sale.first, sale.sent_at = played.name, now
            phase, spoiled = played.now(now), played.spoils(sale)
            fails = phase.fails or spoiled is not None
            ms = phase.delay if spoiled is None else spoiled
            if not fails:
                played.booked.add(sale.id)  # also for who hangs up before the answer
            number = 0 if claim.sent_before else worker.routes.endpoints[played.name].sent(claim.account, now)
            if ms / 1000 > GIVES_UP:
                outcome, ms = Outcome(Result.UNKNOWN, code="timeout", healthy=False), GIVES_UP * 1000
            elif fails:
                outcome = Outcome(Result.NOT_BOOKED, code="http_500", healthy=False, outage=True)
            else:
                outcome = Outcome(Result.BOOKED, code="http_200")
            self._later(now + ms / 1000, self._answer(worker, claim, number, outcome, ms))

        return send

    def _answer(
        self, worker: Worker, claim: PaymentClaim, number: int, outcome: Outcome, ms: float
    ) -> Callable[[float], None]:
        def answer(now: float) -> None:
            sale, played = self.sales[claim.payment_id - 1], self.by_account[claim.account.id]
            endpoint = worker.routes.endpoints[played.name]
            endpoint.answered(number, claim.account, sale.id, outcome, ms=ms, now=now)
            worker.slots.release(sale.tenant, played.name)
            settlement = after_send(claim, outcome, round(ms))
            sale.status, sale.leased = settlement.status, False
            if settlement.status == UNCERTAIN and sale.id in played.booked:
                sale.status = SUCCEEDED  # the look-up finds it
            elif settlement.status in (UNCERTAIN, PROCESSING):
                sale.status = QUEUED
            if sale.status == SUCCEEDED:
                sale.done_at = now
                del self.open[sale.id]
            sale.run_at = now + (settlement.wait or 0.0)

        return answer

    # -- What came of it -----------------------------------------------------------------------------------

    def booked_twice(self) -> list[int]:
        counts = Counter(one for played in self.processors for one in played.booked)
        return [sale for sale, times in counts.items() if times > 1]

    def sent_to(self, name: str, since: float, until: float) -> list[Sale]:
        """Payments that came in then and went there first."""
        return [sale for sale in self.sales if since <= sale.at < until and sale.first == name]

    def fees_paid(self) -> float:
        by_name = {played.name: fee for played, fee in zip(self.processors, self.fees, strict=True)}
        return sum(by_name[self._where(sale)] for sale in self._comparable())

    def fees_of_the_oracle(self) -> float:
        """Each payment at the cheapest processor that would answer within patience at that instant."""
        return sum(self.fees[self._best(sale.at)] for sale in self._comparable())

    def _comparable(self) -> list[Sale]:
        return [sale for sale in self.sales if self._best(sale.at) is not None]

    def _best(self, at: float) -> int | None:
        for n, played in enumerate(self.processors):
            phase = played.now(at)
            if not phase.fails and phase.delay <= self.patience:
                return n
        return None

    def _where(self, sale: Sale) -> str:
        return next(played.name for played in self.processors if sale.id in played.booked)
