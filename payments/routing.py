"""Which processor, and why: by health, breaker, response-time trend and fee. Sending is dispatch's matter."""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from payments.breaker import Breaker, State
from payments.processors import KINDS
from payments.processors.base import Account, Health
from registry import database

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "routing.sql")

FRESH = 0.5  # seconds that a tenant's accounts are used before they are read again; a switch works within that
POLL_EVERY = 5.05  # seconds between health calls to one endpoint, of all workers together (it allows one in 5 s)
SLOW_MS = 150  # expected answers up to this are worth no dearer fee
WORTH_MS = 400  # a dearer processor must be expected to be at least so much faster
TREND_WEIGHT = 0.2  # of the newest answer in the moving average
SYNC_EVERY = 0.5  # seconds between writing what this worker saw and reading what others saw


# -- What is known of an endpoint -----------------------------------------------------------------------


@dataclass(slots=True)
class Endpoint:
    """One address, as this worker sees it and as all workers share it."""

    key: str
    breaker: Breaker = field(default_factory=Breaker)
    failing: bool = False
    min_response_ms: int = 0
    trend_ms: float = 0.0
    measured_at: float = 0.0
    polled_at: float = 0.0
    known_state: State = State.CLOSED  # as the database had it last

    @property
    def expected_ms(self) -> float:
        """How long an answer will take: what it measured itself, or said of itself more recently."""
        return (
            max(self.trend_ms, self.min_response_ms)
            if self.measured_at >= self.polled_at
            else float(self.min_response_ms)
        )

    def allows(self, now: float) -> bool:
        return not self.failing and self.breaker.allows(now)

    def admits(self, now: float) -> bool:
        """`allows`, for whoever then sends: where that is a probe, it is the only one."""
        if not self.allows(now):
            return False
        if self.breaker.is_probe():
            self.breaker.probing(now)
        return True

    def answered(self, *, healthy: bool, seconds: float, now: float | None = None) -> None:
        """Learn from an answer; `now` is of who replays what was long ago."""
        now = time.monotonic() if now is None else now
        if healthy:
            self.breaker.succeeded()
            self.failing = False
            self.trend_ms += (seconds * 1000 - self.trend_ms) * TREND_WEIGHT
            self.measured_at = now
        else:
            self.breaker.failed(now)

    def said(self, health: Health) -> None:
        """Learn from its health call."""
        now = time.monotonic()
        if self.failing and not health.failing:
            self.breaker.recovered(now)
        self.failing, self.min_response_ms = health.failing, health.min_response_ms
        self.polled_at = now


# -- The choice ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Road:
    """A choice and its reason."""

    account: Account
    reason: str


def choose(accounts: Sequence[tuple[Account, Endpoint]], *, wanted: str = "", now: float) -> Road | None:
    """The cheapest healthy processor, unless a dearer one is expected to be much faster. None: wait, never fail.

    `accounts` are the tenant's, cheapest first; `wanted` restricts them to one name, else those only by name are left out.
    """
    able = [(a, e) for a, e in accounts if a.enabled and _is_meant(a, wanted) and e.allows(now)]
    if not able:
        return None
    account, endpoint = able[0]
    reason = _why_first(accounts, account, wanted)
    if not wanted and endpoint.expected_ms > SLOW_MS and not endpoint.breaker.is_probe():
        faster = min(able[1:], key=lambda pair: pair[1].expected_ms, default=None)
        if faster and endpoint.expected_ms - faster[1].expected_ms > WORTH_MS and not faster[1].breaker.is_probe():
            reason = (
                f"{account.name} needs {endpoint.expected_ms:.0f} ms, {faster[0].name} {faster[1].expected_ms:.0f} ms"
            )
            account, endpoint = faster
    if endpoint.breaker.is_probe():
        endpoint.breaker.probing(now)
        reason = f"probe: is {account.name} well again?"
    return Road(account, reason)


def _is_meant(account: Account, wanted: str) -> bool:
    return account.name == wanted if wanted else not account.only_by_name


def _why_first(accounts: Sequence[tuple[Account, Endpoint]], chosen: Account, wanted: str) -> str:
    if wanted:
        return "asked for by name"
    passed = [(a, e) for a, e in accounts if a.enabled and _is_meant(a, wanted) and a.fee_ppm < chosen.fee_ppm]
    if not passed:
        return f"cheapest, {chosen.fee_ppm / 10_000:g} % fee"
    account, endpoint = passed[0]
    return f"{account.name} {'is failing' if endpoint.failing else 'has its breaker open'}"


# -- Accounts and endpoints of the tenants at work ----------------------------------------------------------


class Atlas:
    """The accounts of tenants and the endpoints behind them, read when needed, shared with other workers by the database."""

    def __init__(self) -> None:
        self.endpoints: dict[str, Endpoint] = {}
        self._accounts: dict[int, list[Account]] = {}
        self._read_at: dict[int, float] = {}

    async def learn(
        self, tenants: set[int], fetch: Callable[..., Awaitable[list[database.Row]]] = database.fetch
    ) -> None:
        """Make sure that the accounts of `tenants` are known and not older than FRESH."""
        now = time.monotonic()
        stale = [tenant for tenant in tenants if now - self._read_at.get(tenant, -FRESH) >= FRESH]
        if not stale:
            return
        found: dict[int, list[Account]] = {tenant: [] for tenant in stale}
        for row in await fetch(SQL["accounts"], {"tenants": stale}):
            account = _account(row)
            found[account.tenant_id].append(account)
            self.endpoints.setdefault(account.endpoint, Endpoint(account.endpoint))
            if not _polled(account):
                self._ask_switch(account)
        self._accounts.update(found)
        self._read_at.update(dict.fromkeys(stale, now))

    def _ask_switch(self, account: Account) -> None:
        # It has no health call: what the switch says is what a poll would have said just now.
        endpoint = self.endpoints[account.endpoint]
        endpoint.min_response_ms, endpoint.polled_at = int(account.number("delay")), time.monotonic()

    def of(self, tenant: int) -> list[tuple[Account, Endpoint]]:
        """The tenant's accounts, cheapest first, with their endpoints."""
        return [(account, self.endpoints[account.endpoint]) for account in self._accounts.get(tenant, [])]

    def account(self, tenant: int, processor_id: int) -> Account | None:
        return next((account for account in self._accounts.get(tenant, []) if account.id == processor_id), None)

    def polled(self) -> list[Account]:
        """One account per endpoint that has a health call."""
        return list({a.endpoint: a for accounts in self._accounts.values() for a in accounts if _polled(a)}.values())

    def rooms(self) -> dict[int, int]:
        """Tenants that can have only so many payments sent now: one while a probe is due, none while nothing is allowed."""
        now = time.monotonic()
        rooms = {}
        for tenant, accounts in self._accounts.items():
            able = [
                self.endpoints[a.endpoint] for a in accounts if a.enabled and self.endpoints[a.endpoint].allows(now)
            ]
            if all(endpoint.breaker.is_probe() for endpoint in able):
                rooms[tenant] = min(len(able), 1)
        return rooms

    async def share(self) -> None:
        """Write what this worker learned, read what others did: breakers, trends, health."""
        if not self.endpoints:
            return
        mine = list(self.endpoints.values())
        changed = [e.breaker for e in mine if e.breaker.changed]
        parameters = {
            "keys": [e.key for e in mine],
            "breakers": [str(e.breaker.state) if e.breaker.changed else "" for e in mine],
            "failures": [e.breaker.failures for e in mine],
            "trends": [float(e.trend_ms) if e.measured_at else None for e in mine],
        }
        for breaker in changed:  # before the write: what changes while it is under way is for the next one
            breaker.changed = False
        try:
            rows = await database.fetch(SQL["share"], parameters)
        except BaseException:
            for breaker in changed:
                breaker.changed = True
            raise
        for key, failing, minimum, breaker, polled_ago in rows:
            self._adopt(self.endpoints[key], failing, minimum, State(breaker), polled_ago)

    def _adopt(self, endpoint: Endpoint, failing: bool, minimum: int, state: State, polled_ago: float | None) -> None:
        now = time.monotonic()
        if polled_ago is not None and now - polled_ago > endpoint.polled_at + 0.01:
            endpoint.said(Health(failing, minimum))
            endpoint.polled_at = now - polled_ago
        fresher = endpoint.breaker.changed  # while this was read; it is written next
        if state is not endpoint.known_state and state is not endpoint.breaker.state and not fresher:
            if state is State.OPEN:
                endpoint.breaker.trip(now)
            elif state is State.CLOSED:
                endpoint.breaker.reset()
            endpoint.breaker.changed = False
        endpoint.known_state = state


def _polled(account: Account) -> bool:
    kind = KINDS.get(account.kind)  # typed in by people, as the options below
    return kind is not None and kind.polled


def _account(row: database.Row) -> Account:
    names = (
        "id", "tenant_id", "name", "kind", "url", "fee_ppm", "options", "enabled", "endpoint", "mode", "sealed", "plan_ppm",
    )  # fmt: skip
    fields = dict(zip(names, row, strict=True))
    if not isinstance(fields["options"], dict):  # typed in by people: one tenant's slip must not stop all
        fields["options"] = {}
    return Account(**fields)


async def elect(keys: Sequence[str]) -> set[str]:
    """The endpoints that this caller, and nobody else, may ask for their health now."""
    rows = await database.fetch(SQL["elect"], {"keys": list(keys), "every": POLL_EVERY}, repeatable=False)
    return {key for (key,) in rows}


async def note(key: str, health: Health) -> None:
    """Write down what a health call said, for all workers and for the eye."""
    parameters = {"key": key, "failing": health.failing, "minimum": health.min_response_ms, "every": POLL_EVERY}
    await database.fetch(SQL["note"], parameters)
