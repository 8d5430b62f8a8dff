"""Route due rows: each becomes a claim that holds a concurrency slot, or waits. No I/O; work.py reads and writes."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from payments.processors.base import Account
from payments.routing import routing
from payments.routing.routing import Route, RoutingTable, Wait
from payments.settle.concurrency import Slots
from payments.settle.decisions import PaymentClaim
from payments.states import PROCESSING, QUEUED, UNCERTAIN, Status
from queueing.work.pools import Division
from queueing.work.work import Routed


class DuePayment(NamedTuple):
    """A claimed row, in the order of the SQL file's `columns`."""

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
    processor_id: int  # of the last attempt, like requested_at; both None for a payment without attempts
    requested_at: datetime
    doubted_for: float
    description: str
    method: dict[str, Any] | None
    reference: str
    canceling: bool
    free: bool  # in doubt, and no worker was interrupted
    waited: float  # seconds since it was accepted, or since the date it was scheduled for, by the database's clock


def route(
    rows: Sequence[DuePayment], routes: RoutingTable, slots: Slots, *, now: float, at: datetime
) -> Routed[PaymentClaim]:
    """Route `rows`; each claim holds a slot. `now`: time.monotonic(); `at`: requestedAt of first sends.

    Postponed are pairs of a row and the seconds that it waits for a free slot (None: no processor is available).
    """
    claims: list[PaymentClaim] = []
    postponed: list[tuple[DuePayment, float | None]] = []
    for row in rows:
        route = _route_of(row, routes, slots, now)
        if route is None:
            postponed.append((row, None))
        elif isinstance(route, Wait):
            postponed.append((row, route.seconds))
        else:
            slots.acquire(row.tenant_id, route.account.endpoint)
            claims.append(_claim(row, route, now, at))
    return Routed(claims, postponed)


def _route_of(row: DuePayment, routes: RoutingTable, slots: Slots, now: float) -> Route | Wait | None:
    def full(account: Account) -> bool:
        return not slots.free(row.tenant_id, account.endpoint)

    if row.status == QUEUED:
        accounts = routes.of(row.tenant_id)
        return routing.choose(accounts, wanted=row.wanted, now=now, waited=row.waited, full=full)
    # Sent before and in doubt, or changed there: the same processor, the same requestedAt.
    account = routes.account(row.tenant_id, row.processor_id)
    if account is None or full(account):
        return None
    why = "a change was reported" if is_recheck(row) else "the outcome of an earlier send is unknown"
    return Route(account, f"same processor: {why}")


def is_recheck(row: DuePayment) -> bool:
    """Whether lifecycle.look_again made it due: no worker was interrupted, but it may have changed at the processor."""
    return row.status == PROCESSING and row.free


def _claim(row: DuePayment, route: Route, now: float, at: datetime) -> PaymentClaim:
    fresh = row.status == QUEUED
    return PaymentClaim(
        tenant_id=row.tenant_id,
        payment_id=row.payment_id,
        correlation_id=row.correlation_id,
        amount=row.amount,
        currency=row.currency,
        status=PROCESSING if fresh or is_recheck(row) else UNCERTAIN,
        was=Status(row.status),
        number=row.attempt + 1,
        tries=row.attempt + 1 - row.tries_from,
        account=route.account,
        reason=route.reason,
        requested_at=at if fresh else row.requested_at,
        in_doubt_since=None if fresh else row.doubted_since,
        in_doubt_for=0.0 if fresh else row.doubted_for,
        taken_at=now,
        created_at=row.created_at,
        waited=row.waited,
        description=row.description,
        method=row.method,
        reference="" if fresh else row.reference,
        canceling=row.canceling,
    )


def divided(quotas: dict[int, int], routes: RoutingTable, division: Division, now: float) -> dict[str, Any]:
    """Parameters of the statement `take_divided`: which payments of these tenants are this worker's."""
    parts, included = division.parts("payments")
    pairs = {tenant: routes.of(tenant) for tenant in quotas}
    firsts = [routing.first_choice(accounts, now) for accounts in pairs.values()]
    return {
        "tenants": list(quotas),
        "quotas": list(quotas.values()),
        "firsts": [included == (first is not None and first.name in parts) for first in firsts],
        "parts": list(parts),
        **_accounts(quotas, routes, division),
    }


def is_mine(row: DuePayment, routes: RoutingTable, division: Division, now: float) -> bool:
    """Whether a payment is this worker's, as `take_divided` decides it."""
    parts, included = division.parts("payments")
    if row.status != "queued":
        accounts = {account.id: account.name for account, _ in routes.of(row.tenant_id)}
        return included == (accounts.get(row.processor_id) in parts)
    if row.wanted:
        return included == (row.wanted in parts)
    first = routing.first_choice(routes.of(row.tenant_id), now)
    return included == (first is not None and first.name in parts)


def in_doubt(tenants: Collection[int], routes: RoutingTable, division: Division) -> dict[str, Any]:
    """Parameters of the statement `in_doubt`: the payments of which accounts of these tenants are this worker's, or another's."""
    if not division.is_divided("payments"):
        return {"accounts": None, "included": False}
    return _accounts(tenants, routes, division)


def _accounts(tenants: Collection[int], routes: RoutingTable, division: Division) -> dict[str, Any]:
    parts, included = division.parts("payments")
    pairs = [pair for tenant in tenants for pair in routes.of(tenant)]
    return {"included": included, "accounts": [account.id for account, _ in pairs if account.name in parts]}


def free_by_tenant(free: dict[int, int], routes: RoutingTable, slots: Slots, limit: int, now: float) -> dict[int, int]:
    """`free` (how many more payments each tenant may have in flight), lowered to the slots that are free at its endpoints.

    Returns `free` itself if slots are not scarce for a claim of `limit` rows.
    """
    if not slots.scarce(limit):
        return free
    left = {tenant: sum(slots.free(tenant, key) for key in keys) for tenant, keys in routes.usable(now).items()}
    return free | {t: min(few, free.get(t, few)) for t, few in left.items() if few < limit}
