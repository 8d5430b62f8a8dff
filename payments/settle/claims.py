"""Route due rows: each becomes a claim that holds a concurrency slot, or waits. No I/O; work.py reads and writes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from payments.processors.base import Account
from payments.routing import routing
from payments.routing.routing import Route, RoutingTable, Wait
from payments.settle.concurrency import Slots
from payments.settle.decisions import Claim
from payments.states import PROCESSING, QUEUED, UNCERTAIN, Status


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


@dataclass
class Routed:
    """The results of routing due rows."""

    claims: list[Claim] = field(default_factory=list)
    unroutable: list[DuePayment] = field(default_factory=list)  # no processor is available
    waiting: list[tuple[DuePayment, float]] = field(default_factory=list)  # for a free slot, for so many seconds


def route(rows: Sequence[DuePayment], routes: RoutingTable, slots: Slots, *, now: float, at: datetime) -> Routed:
    """Route `rows`; each claim holds a slot. `now`: time.monotonic(); `at`: requestedAt of first sends."""
    routed = Routed()
    for row in rows:
        route = _route_of(row, routes, slots, now)
        if route is None:
            routed.unroutable.append(row)
        elif isinstance(route, Wait):
            routed.waiting.append((row, route.seconds))
        else:
            slots.acquire(row.tenant_id, route.account.endpoint)
            routed.claims.append(_claim(row, route, now, at))
    return routed


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


def _claim(row: DuePayment, route: Route, now: float, at: datetime) -> Claim:
    fresh = row.status == QUEUED
    return Claim(
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
        description=row.description,
        method=row.method,
        reference="" if fresh else row.reference,
        canceling=row.canceling,
    )


def rooms(room: dict[int, int], routes: RoutingTable, slots: Slots, limit: int, now: float) -> dict[int, int]:
    """`room` (tenant → payments that it may have more) with what the addresses of each have left, where that is less."""
    if not slots.scarce(limit):
        return room
    left = {tenant: sum(slots.free(tenant, key) for key in keys) for tenant, keys in routes.usable(now).items()}
    return room | {t: min(few, room.get(t, few)) for t, few in left.items() if few < limit}
