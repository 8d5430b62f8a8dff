"""Decide what becomes of a row that waits for an operator (replay, retry, close): compare and set, audit entry, wake."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import DEFAULT_DB_ALIAS
from django_async_backend.db import async_connections
from django_async_backend.db.transaction import async_atomic
from psycopg import AsyncConnection

from registry.data import database, live
from registry.tenants import audit


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What a decision changed, as one entry of the audit trail says it."""

    target: str
    tenant_id: int | None = None
    rows: int = 1
    detail: dict[str, Any] = field(default_factory=dict)
    events: Sequence[live.Event] = ()  # sent to those who watch, after the commit


type Move = Callable[[AsyncConnection], Awaitable[list[Moved]]]


class Lost(Exception):
    """Somebody else moved the row first. Raise it in a move to roll back what the move did so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How an action on several rows went."""

    rows: int
    lost: int = 0  # rows that somebody else had moved first
    warnings: Sequence[str] = ()  # shown to the person who acts
    errors: Sequence[str] = ()


async def decide(
    *,
    action: str,
    actor: str,
    reason: str,
    move: Move,
    wake: Callable[[], Awaitable[None]] | None = None,
    repeatable: bool = True,
) -> list[Moved]:
    """Run `move` and record what it moved in one transaction, then tell those who watch and `wake` the workers.

    `move` gets the connection of the transaction, for named statements; it compares and sets. The list is empty where somebody else was faster; then nothing is recorded. After a lost
    connection a `repeatable` move runs again: one that compares and sets finds its row moved, and does nothing.
    """

    async def once() -> list[Moved]:
        async with async_atomic():
            moved = await move(async_connections[DEFAULT_DB_ALIAS].connection)
            for one in moved:
                await _record(one, action, actor, reason)
            return moved

    try:
        moved = await database.retrying(once, repeatable=repeatable)
    except Lost:
        return []
    live.publish([event for one in moved for event in one.events])
    if moved and wake:
        await wake()
    return moved


async def _record(moved: Moved, action: str, actor: str, reason: str) -> None:
    await audit.record(
        actor=actor,
        action=action,
        target=moved.target,
        tenant_id=moved.tenant_id,
        rows=moved.rows,
        reason=reason,
        detail=moved.detail,
    )


async def each[T](rows: Iterable[T], decision: Callable[[T], Awaitable[bool]]) -> Done:
    """Decide row by row, each in its own transaction: one that is lost holds up none of the others."""
    outcomes = [await decision(row) for row in rows]
    return Done(rows=outcomes.count(True), lost=outcomes.count(False))
