"""Choose a processor: the cheapest that works and answers in time. The state of each endpoint is in endpoint.py."""

import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from payments.processors import KINDS
from payments.processors.base import Account, Health
from payments.routing.endpoint import EndpointCondition
from registry.data import database
from registry.data.breaker import BreakerState
from registry.telemetry import metrics

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "routing.sql")

FRESH = 0.5  # seconds after which a tenant's accounts are read again; a switch takes effect within that
POLL_EVERY = 5.05  # seconds between health calls to one endpoint by all workers together (it allows one in 5 s)
SYNC_EVERY = 0.5  # seconds between exchanges of endpoint states with other workers
SLOT_EVERY = 0.5  # seconds between checks for a free slot; longer for a payment that has waited long
SHARED_EVERY = 5.0  # seconds between checks for endpoints at which several tenants have accounts


# -- The choice ------------------------------------------------------------------------------------------

type Pair = tuple[Account, EndpointCondition]


@dataclass(frozen=True, slots=True)
class Route:
    """The chosen account and the reason."""

    account: Account
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """The best processor has no free slot, and the tenant's patience lasts: try again after `seconds`."""

    seconds: float


def choose(
    accounts: Sequence[Pair],
    *,
    wanted: str = "",
    now: float,
    waited: float = 0.0,
    full: Callable[[Account], bool] = lambda account: False,
) -> Route | Wait | None:
    """The cheapest processor that answers within the tenant's patience; None if no processor is available (not a failure).

    `accounts`: the tenant's, cheapest first. `wanted`: the only name that is allowed; without it, accounts that are
    `only_by_name` are left out. `waited`: seconds since the payment became due. `full`: whether an account has no free slot.
    """
    able = [(a, e) for a, e in accounts if a.enabled and _is_meant(a, wanted) and e.allows(a.id, now)]
    picked = _pick(able, now, full)
    if picked and full(picked.account):
        patience = picked.account.patience_ms / 1000
        if waited < patience:
            return Wait(min(patience - waited, max(SLOT_EVERY, waited / 2)))
        picked = _pick([(a, e) for a, e in able if not full(a)], now, full)
    if not picked:
        return None
    reason = _reason(accounts, picked, wanted, now)
    picked.endpoint.probing(picked.account.id, now)
    if picked.trial:
        picked.endpoint.trying(picked.account, now)
    return Route(picked.account, reason)


def first_choice(accounts: Sequence[Pair], now: float) -> Account | None:
    """The account that a payment without a wish would be sent to now. Changes nothing: `choose` counts probes."""
    able = [(a, e) for a, e in accounts if a.enabled and _is_meant(a, "") and e.allows(a.id, now)]
    picked = _pick(able, now, lambda account: False)
    return picked.account if picked else None


class _Pick(NamedTuple):
    account: Account
    endpoint: EndpointCondition
    trial: bool = False  # the processor was slow: the payment tests whether it still is


def _pick(able: Sequence[Pair], now: float, full: Callable[[Account], bool]) -> _Pick | None:
    """The cheapest that is fast or needs a probe; if all are slow, the cheapest whose answer takes little longer than the fastest.

    No payment waits for a slot to probe. A processor that reports itself as slow is probed only if no other is fast.
    """
    slow: list[Pair] = []

    def trials() -> Iterator[_Pick]:
        return (_Pick(a, e, trial=True) for a, e in slow if e.may_try(a, now) and not full(a))

    for account, endpoint in able:
        probed = endpoint.is_probe(account.id)
        if probed and full(account):
            continue
        if probed and not endpoint.reports_slow(account, now):
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
        return f"probe: is {account.name} fast again?" if trial else f"probe: has {account.name} recovered?"
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
        return f"{cheaper.name} has no free slot"
    return (
        f"{cheaper.name} needs {its.expected_ms(cheaper.id, now):.0f} ms, "
        f"{account.name} {endpoint.expected_ms(account.id, now):.0f} ms"
    )


# -- The routing table --------------------------------------------------------------------------------------


class RoutingTable:
    """The accounts and endpoints of the tenants with work. Endpoint states are shared between workers through the database."""

    def __init__(self) -> None:
        self.endpoints: dict[str, EndpointCondition] = {}
        self._accounts: dict[int, list[Account]] = {}
        self._read_at: dict[int, float] = {}
        self._shared_read_at = -SHARED_EVERY

    async def load(
        self, tenants: set[int], fetch: Callable[..., Awaitable[list[database.Row]]] = database.fetch
    ) -> None:
        """Read the accounts of `tenants` unless they were read within FRESH."""
        now = time.monotonic()
        stale = [tenant for tenant in tenants if now - self._read_at.get(tenant, -FRESH) >= FRESH]
        if not stale:
            return
        accounts: dict[int, list[Account]] = {tenant: [] for tenant in stale}
        for row in await fetch(SQL["accounts"], {"tenants": stale}):
            account = _account(row)
            accounts[account.tenant_id].append(account)
        before = len(self.endpoints)
        self.set_accounts(accounts, now)
        if len(self.endpoints) > before or now - self._shared_read_at >= SHARED_EVERY:
            for (key,) in await fetch(SQL["shared"], {"keys": list(self.endpoints)}):
                self.endpoints[key].mark_shared()
            self._shared_read_at = now
        self._read_at.update(dict.fromkeys(stale, now))

    def set_accounts(self, accounts: dict[int, list[Account]], now: float) -> None:
        """Replace the accounts of these tenants; each tenant's cheapest comes first."""
        for account in chain(*accounts.values()):
            self.endpoints.setdefault(account.endpoint, EndpointCondition(account.endpoint))
            if not _polled(account):
                self._apply_delay(account, now)
        self._accounts.update(accounts)

    def _apply_delay(self, account: Account, now: float) -> None:
        # A sandbox has no health call: its option stands for the report of a poll.
        endpoint, delay = self.endpoints[account.endpoint], int(account.number("delay"))
        if delay != endpoint.min_response_ms:
            endpoint.health_reported(Health(endpoint.failing, delay), now)
        endpoint.polled_at = now

    def of(self, tenant: int) -> list[tuple[Account, EndpointCondition]]:
        """The tenant's accounts, cheapest first, with their endpoints."""
        return [(account, self.endpoints[account.endpoint]) for account in self._accounts.get(tenant, [])]

    def account(self, tenant: int, processor_id: int) -> Account | None:
        return next((account for account in self._accounts.get(tenant, []) if account.id == processor_id), None)

    def polled(self) -> list[Account]:
        """One account per endpoint that has a health call."""
        return list({a.endpoint: a for accounts in self._accounts.values() for a in accounts if _polled(a)}.values())

    def send_limits(self, now: float | None = None) -> dict[int, int]:
        """Tenants of which only so many payments can be sent now: one while a probe is due, none while no processor is available."""
        now = time.monotonic() if now is None else now
        limits = {}
        for tenant, accounts in self._accounts.items():
            able = [a for a in accounts if a.enabled and self.endpoints[a.endpoint].allows(a.id, now)]
            if all(self.endpoints[a.endpoint].is_probe(a.id) for a in able):
                limits[tenant] = min(len(able), 1)
        return limits

    def usable(self, now: float) -> dict[int, set[str]]:
        """By tenant, the endpoints that payments may be sent to now."""
        return {
            tenant: {a.endpoint for a in accounts if a.enabled and self.endpoints[a.endpoint].allows(a.id, now)}
            for tenant, accounts in self._accounts.items()
        }

    async def read_shared(self) -> None:
        """Read the endpoint states of the workers of payments, and write none: for other kinds of work."""
        rows = await database.fetch(SQL["endpoints"], {"keys": list(self.endpoints)})
        for endpoint in self.endpoints.values():
            endpoint.breaker.changed = False  # it is never written
        for row in rows:
            self._adopt(*row)

    def publish_pace(self) -> None:
        """Set the metric of response times: by kind, of the slowest address or account there."""
        now, slowest = time.monotonic(), dict.fromkeys(KINDS, 0.0)
        for endpoint in self.endpoints.values():
            if (kind := endpoint.key.partition(":")[0]) in slowest:
                slowest[kind] = max(slowest[kind], endpoint.recent_ms(now))
        for kind, ms in slowest.items():
            metrics.RESPONSE_SECONDS.labels(kind).set(ms / 1000)

    async def share(self) -> None:
        """Write this worker's breakers and trends, and read those and the health reports of the others."""
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
        for breaker in changed:  # before the write: a change during it belongs to the next one
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
        now, endpoint, state = time.monotonic(), self.endpoints[key], BreakerState(breaker)
        if polled_ago is not None and now - polled_ago > endpoint.polled_at + 0.01:
            endpoint.health_reported(Health(failing, minimum), now - polled_ago)
        newer = endpoint.breaker.changed  # since the read began; the next write has it
        if state is not endpoint.known_state and state is not endpoint.breaker.state and not newer:
            if state is BreakerState.OPEN:
                endpoint.breaker.trip(now)
            elif state is BreakerState.CLOSED:
                endpoint.recovered(now)
            endpoint.breaker.changed = False
        endpoint.known_state = state


def _polled(account: Account) -> bool:
    kind = KINDS.get(account.kind)  # an administrator may have typed anything
    return kind is not None and kind.polled


def _account(row: database.Row) -> Account:
    names = (
        "id", "tenant_id", "name", "kind", "url", "fee_ppm", "options", "enabled", "endpoint", "mode", "sealed", "plan_ppm",
        "patience_ms", "public_only",
    )  # fmt: skip
    fields = dict(zip(names, row, strict=True))
    if not isinstance(
        fields["options"], dict
    ):  # an administrator may have typed anything: one tenant's mistake must not stop all tenants
        fields["options"] = {}
    return Account(**fields)


async def elect(keys: Sequence[str]) -> tuple[set[str], dict[str, float]]:
    """The endpoints whose health only this caller may poll now, and in how many seconds others are due."""
    rows = await database.fetch(SQL["elect"], {"keys": list(keys), "every": POLL_EVERY}, repeatable=False)
    return {key for key, due in rows if due is None}, {key: due for key, due in rows if due is not None}


async def write_health(key: str, health: Health) -> None:
    """Store the answer of a health call, for all workers and for the dashboard."""
    parameters = {"key": key, "failing": health.failing, "minimum": health.min_response_ms, "every": POLL_EVERY}
    await database.fetch(SQL["write_health"], parameters)
