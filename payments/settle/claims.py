"""From rows that are due to claims: each is routed, and takes a place, or waits. No I/O; work.py reads and writes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from payments.processors.base import Account
from payments.routing import routing
from payments.routing.routing import Atlas, Road, Wait
from payments.settle.concurrency import Places
from payments.settle.decisions import Claim
from payments.states import PROCESSING, QUEUED, UNCERTAIN, Status


class Found(NamedTuple):
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
    processor_id: int  # of the last attempt, as requested_at: a fresh payment has neither (None)
    requested_at: datetime
    doubted_for: float
    description: str
    method: dict[str, Any] | None
    reference: str
    canceling: bool
    free: bool  # in doubt, but in no worker's hands that may have been cut off
    waited: float  # seconds since it was accepted, or since the date it was scheduled for, by the database's clock


@dataclass
class Routed:
    """What becomes of rows that were found due."""

    claims: list[Claim] = field(default_factory=list)
    unroutable: list[Found] = field(default_factory=list)  # no processor can take them now
    waiting: list[tuple[Found, float]] = field(default_factory=list)  # for a place, and seconds until the next look


def route(found: Sequence[Found], atlas: Atlas, places: Places, *, now: float, at: datetime) -> Routed:
    """Route `found`; each claim holds a place. `now` is of our monotonic clock, `at` the requestedAt of what is sent first."""
    routed = Routed()
    for row in found:
        road = _road(row, atlas, places, now)
        if road is None:
            routed.unroutable.append(row)
        elif isinstance(road, Wait):
            routed.waiting.append((row, road.seconds))
        else:
            places.take(row.tenant_id, road.account.endpoint)
            routed.claims.append(_claim(row, road, now, at))
    return routed


def _road(row: Found, atlas: Atlas, places: Places, now: float) -> Road | Wait | None:
    def full(account: Account) -> bool:
        return not places.left(row.tenant_id, account.endpoint)

    if row.status == QUEUED:
        accounts = atlas.of(row.tenant_id)
        return routing.choose(accounts, wanted=row.wanted, now=now, waited=row.waited, full=full)
    # Sent before, outcome unknown or changed: the same processor, the same requestedAt.
    account = atlas.account(row.tenant_id, row.processor_id)
    if account is None or full(account):
        return None
    why = "it was asked to look again" if asked(row) else "the outcome of an earlier send is unknown"
    return Road(account, f"same processor: {why}")


def asked(row: Found) -> bool:
    """Whether lifecycle.look_again brought it here: nobody was cut off, but something happened to it there."""
    return row.status == PROCESSING and row.free


def _claim(row: Found, road: Road, now: float, at: datetime) -> Claim:
    fresh = row.status == QUEUED
    return Claim(
        tenant_id=row.tenant_id,
        payment_id=row.payment_id,
        correlation_id=row.correlation_id,
        amount=row.amount,
        currency=row.currency,
        status=PROCESSING if fresh or asked(row) else UNCERTAIN,
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


def rooms(room: dict[int, int], atlas: Atlas, places: Places, limit: int, now: float) -> dict[int, int]:
    """`room` (tenant → payments that it may have more) with what the addresses of each have left, where that is less."""
    if not places.scarce(limit):
        return room
    left = {tenant: sum(places.left(tenant, key) for key in keys) for tenant, keys in atlas.usable(now).items()}
    return room | {t: min(few, room.get(t, few)) for t, few in left.items() if few < limit}
