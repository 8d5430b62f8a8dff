"""Which processor, and why: the cheapest that works and answers in time. What is known of each is in endpoint.py."""

import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from payments.processors import KINDS
from payments.processors.base import Account, Health
from payments.routing.endpoint import Endpoint
from registry.data import database
from registry.data.breaker import State

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "routing.sql")

FRESH = 0.5  # seconds that a tenant's accounts are used before they are read again; a switch works within that
POLL_EVERY = 5.05  # seconds between health calls to one endpoint, of all workers together (it allows one in 5 s)
SYNC_EVERY = 0.5  # seconds between writing what this worker saw and reading what others saw
PLACE_EVERY = 0.5  # seconds between looks for a free place; a payment that has waited for long is looked at less often
SHARED_EVERY = 5.0  # seconds between looks for addresses where several tenants have accounts


# -- The choice ------------------------------------------------------------------------------------------

type Pair = tuple[Account, Endpoint]


@dataclass(frozen=True, slots=True)
class Road:
    """A choice and its reason."""

    account: Account
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """The processor that it should go to has no place free; the tenant's patience lasts, and in so many seconds it may have one."""

    seconds: float


def choose(
    accounts: Sequence[Pair],
    *,
    wanted: str = "",
    now: float,
    waited: float = 0.0,
    full: Callable[[Account], bool] = lambda account: False,
) -> Road | Wait | None:
    """The cheapest processor that answers within the tenant's patience. None: there is none to send to, which is no failure.

    `accounts` are the tenant's, cheapest first; `wanted` restricts them to one name, else those only by name are left out;
    `waited` is for how many seconds the payment has been due.
    """
    able = [(a, e) for a, e in accounts if a.enabled and _is_meant(a, wanted) and e.allows(a.id, now)]
    picked = _pick(able, now, full)
    if picked and full(picked.account):
        patience = picked.account.patience_ms / 1000
        if waited < patience:
            return Wait(min(patience - waited, max(PLACE_EVERY, waited / 2)))
        picked = _pick([(a, e) for a, e in able if not full(a)], now, full)
    if not picked:
        return None
    reason = _reason(accounts, picked, wanted, now)
    picked.endpoint.probing(picked.account.id, now)
    if picked.trial:
        picked.endpoint.trying(picked.account, now)
    return Road(picked.account, reason)


class _Pick(NamedTuple):
    account: Account
    endpoint: Endpoint
    trial: bool = False  # it was slow: the payment finds out whether it still is


def _pick(able: Sequence[Pair], now: float, full: Callable[[Account], bool]) -> _Pick | None:
    """The cheapest that is quick enough, or that is to be probed; of slow ones the cheapest that is about as fast as any.

    Nothing waits for the place of a probe, and none goes where the processor says itself that it is slow, if another is quick.
    """
    slow: list[Pair] = []

    def trials() -> Iterator[_Pick]:
        return (_Pick(a, e, trial=True) for a, e in slow if e.may_try(a, now) and not full(a))

    for account, endpoint in able:
        probed = endpoint.is_probe(account.id)
        if probed and full(account):
            continue
        if probed and not endpoint.says_slow(account, now):
            return _Pick(account, endpoint)
        if not probed and not endpoint.is_slow(account, now):
            return next(trials(), _Pick(account, endpoint))
        slow.append((account, endpoint))
    if not slow:
        return None
    fastest = min(e.expected_ms(a.id, now) for a, e in slow)
    chosen = next(_Pick(a, e) for a, e in slow if e.expected_ms(a.id, now) <= fastest + a.patience_ms)
    return next((one for one in trials() if one.account is not chosen.account), chosen)


def _is_meant(account: Account, wanted: str) -> bool:
    return account.name == wanted if wanted else not account.only_by_name


def _reason(accounts: Sequence[Pair], picked: _Pick, wanted: str, now: float) -> str:
    account, endpoint, trial = picked
    if endpoint.is_probe(account.id) or trial:
        return f"probe: is {account.name} {'fast' if trial else 'well'} again?"
    if wanted:
        return "asked for by name"
    passed = [(a, e) for a, e in accounts if a.enabled and _is_meant(a, wanted) and a.fee_ppm < account.fee_ppm]
    if not passed:
        return f"cheapest, {account.fee_ppm / 10_000:g} % fee"
    cheaper, its = passed[0]
    if its.failing:
        return f"{cheaper.name} is failing"
    if its.is_probe(cheaper.id):
        return f"{cheaper.name} has its breaker open"
    if not its.is_slow(cheaper, now):
        return f"{cheaper.name} has no place free"
    return (
        f"{cheaper.name} needs {its.expected_ms(cheaper.id, now):.0f} ms, "
        f"{account.name} {endpoint.expected_ms(account.id, now):.0f} ms"
    )


# -- Accounts and endpoints of the tenants at work ----------------------------------------------------------


class Atlas:
    """The accounts of tenants and the endpoints behind them, read when needed, shared with other workers by the database."""

    def __init__(self) -> None:
        self.endpoints: dict[str, Endpoint] = {}
        self._accounts: dict[int, list[Account]] = {}
        self._read_at: dict[int, float] = {}
        self._looked_at = -SHARED_EVERY  # for who shares an address

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
        before = len(self.endpoints)
        self.know(found, now)
        if len(self.endpoints) > before or now - self._looked_at >= SHARED_EVERY:
            for (key,) in await fetch(SQL["shared"], {"keys": list(self.endpoints)}):
                self.endpoints[key].is_shared()
            self._looked_at = now
        self._read_at.update(dict.fromkeys(stale, now))

    def know(self, accounts: dict[int, list[Account]], now: float) -> None:
        """Route by these accounts of these tenants from now on; each tenant's cheapest comes first."""
        for account in chain(*accounts.values()):
            self.endpoints.setdefault(account.endpoint, Endpoint(account.endpoint))
            if not _polled(account):
                self._ask_switch(account, now)
        self._accounts.update(accounts)

    def _ask_switch(self, account: Account, now: float) -> None:
        # It has no health call: what the switch says is what a poll would have said just now.
        endpoint, delay = self.endpoints[account.endpoint], int(account.number("delay"))
        if delay != endpoint.min_response_ms:
            endpoint.said(Health(endpoint.failing, delay), now)
        endpoint.polled_at = now

    def of(self, tenant: int) -> list[tuple[Account, Endpoint]]:
        """The tenant's accounts, cheapest first, with their endpoints."""
        return [(account, self.endpoints[account.endpoint]) for account in self._accounts.get(tenant, [])]

    def account(self, tenant: int, processor_id: int) -> Account | None:
        return next((account for account in self._accounts.get(tenant, []) if account.id == processor_id), None)

    def polled(self) -> list[Account]:
        """One account per endpoint that has a health call."""
        return list({a.endpoint: a for accounts in self._accounts.values() for a in accounts if _polled(a)}.values())

    def rooms(self, now: float | None = None) -> dict[int, int]:
        """Tenants that can have only so many payments sent now: one while a probe is due, none while nothing is allowed."""
        now = time.monotonic() if now is None else now
        rooms = {}
        for tenant, accounts in self._accounts.items():
            able = [a for a in accounts if a.enabled and self.endpoints[a.endpoint].allows(a.id, now)]
            if all(self.endpoints[a.endpoint].is_probe(a.id) for a in able):
                rooms[tenant] = min(len(able), 1)
        return rooms

    def usable(self, now: float) -> dict[int, set[str]]:
        """By tenant, the addresses where payments may be sent now."""
        return {
            tenant: {a.endpoint for a in accounts if a.enabled and self.endpoints[a.endpoint].allows(a.id, now)}
            for tenant, accounts in self._accounts.items()
        }

    async def hear(self) -> None:
        """Read what the workers of payments learned, and tell them nothing: for who sends something else there."""
        rows = await database.fetch(SQL["heard"], {"keys": list(self.endpoints)})
        for endpoint in self.endpoints.values():
            endpoint.breaker.changed = False  # nobody writes it down
        for row in rows:
            self._adopt(*row)

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
            "trends": [float(e.pace.usual_ms) if e.pace.measured_at else None for e in mine],
        }
        for breaker in changed:  # before the write: what changes while it is under way is for the next one
            breaker.changed = False
        try:
            rows = await database.fetch(SQL["share"], parameters)
        except BaseException:
            for breaker in changed:
                breaker.changed = True
            raise
        for row in rows:
            self._adopt(*row)

    def _adopt(self, key: str, failing: bool, minimum: int, breaker: str, polled_ago: float | None) -> None:
        now, endpoint, state = time.monotonic(), self.endpoints[key], State(breaker)
        if polled_ago is not None and now - polled_ago > endpoint.polled_at + 0.01:
            endpoint.said(Health(failing, minimum), now - polled_ago)
        fresher = endpoint.breaker.changed  # while this was read; it is written next
        if state is not endpoint.known_state and state is not endpoint.breaker.state and not fresher:
            if state is State.OPEN:
                endpoint.breaker.trip(now)
            elif state is State.CLOSED:
                endpoint.closed(now)
            endpoint.breaker.changed = False
        endpoint.known_state = state


def _polled(account: Account) -> bool:
    kind = KINDS.get(account.kind)  # typed in by people, as the options below
    return kind is not None and kind.polled


def _account(row: database.Row) -> Account:
    names = (
        "id", "tenant_id", "name", "kind", "url", "fee_ppm", "options", "enabled", "endpoint", "mode", "sealed", "plan_ppm",
        "patience_ms",
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
