"""Alerts in PostgreSQL: what is open, changes by compare and set, and the messages about them in the same transaction.

Two evaluators at once change each alert once and tell of it once: whoever does not find it as it was read changes nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

from django.db.models import Q
from django_async_backend.db.transaction import async_atomic

from registry.data import database, db_breaker
from registry.errors import Unavailable
from registry.models import Alert, AlertMessage, AlertSilence, AlertWatch
from registry.models.alerts import OPEN, TO_BE_TOLD
from registry.operators.alerts import messages, states
from registry.operators.alerts.messages import Told
from registry.operators.alerts.states import FIRING, HOUR, PENDING, RESOLVED, Fields

SQL = database.statements(Path(__file__).parent / "sql" / "alerts.sql")

WITHIN = 2.0  # seconds for one use of the database: an evaluation must not wait for long
SILENCES_KEPT = timedelta(days=7)  # after their end they are still read: what fires is told then
CLAIM = timedelta(seconds=60)  # that a message belongs to its sender; longer than an attempt
AT_ONCE = 20  # due messages that are read to claim one of them
LONGEST_WAIT = timedelta(minutes=15)  # no attempt is due later; else the clock was set back


@dataclass(slots=True)
class Known:
    """The alerts of the service, or of a host, that an evaluation goes on with."""

    open: dict[str, Alert] = field(default_factory=dict)  # by rule
    closed: list[Alert] = field(
        default_factory=list
    )  # resolved, and somebody who was told that they fired does not know
    silences: list[AlertSilence] = field(default_factory=list)
    messages_wait: bool = False  # whether some message is to be sent, now or later


@dataclass(slots=True)
class Decided:
    """What an evaluation changes."""

    begun: list[Alert] = field(default_factory=list)
    changed: list[tuple[Alert, Fields]] = field(default_factory=list)
    removed: list[Alert] = field(default_factory=list)


async def bounded[T](work: Callable[[], Awaitable[T]]) -> T:
    """Run `work` on a connection of its own, within WITHIN seconds. Raises Unavailable (503)."""

    async def alone() -> T:
        async with database.own_connection():
            return await work()

    try:
        async with asyncio.timeout(WITHIN):
            return await db_breaker.attempt(lambda: database.retrying(alone, repeatable=False), patient=True)
    except TimeoutError as error:
        raise Unavailable(f"no answer within {WITHIN:g} s") from error


# -- Reading -----------------------------------------------------------------------------------------------------


async def load(host: str, now: datetime) -> Known:
    """The alerts of a host, or of the service (""), and the silences of late."""
    parameters = {"host": host, "silenced": now - SILENCES_KEPT}
    [(any_alerts, any_silences, any_messages)] = await database.fetch(SQL["present"], parameters)
    known = Known(messages_wait=any_messages)
    if any_silences:
        known.silences = await silences(now)
    if not any_alerts:
        return known
    async for alert in Alert.async_objects.filter(OPEN | TO_BE_TOLD, host=host):
        if alert.status == RESOLVED:
            known.closed.append(alert)
        else:
            known.open[alert.rule] = alert
    return known


async def silences(now: datetime) -> list[AlertSilence]:
    """Silences that hold, and those that ended of late."""
    return [one async for one in AlertSilence.async_objects.filter(ends_at__gt=now - SILENCES_KEPT)]


async def told_lately(alert: Alert, now: datetime) -> list[datetime]:
    """When messages of the last hour were made about alerts of the same rule and host."""
    recent = Q(told_at__gt=now - HOUR) | Q(told_resolved_at__gt=now - HOUR)
    found = Alert.async_objects.filter(recent, rule=alert.rule, host=alert.host).values_list(
        "told_at", "told_resolved_at"
    )
    return [at async for pair in found for at in pair if at and at > now - HOUR]


# -- Changes -----------------------------------------------------------------------------------------------------


async def save(known: Known, decided: Decided, now: datetime) -> Known:
    """Store what was decided, and messages about what there is to tell. Returns the alerts as they are then."""
    if not (decided.begun or decided.changed or decided.removed or _may_be_told(known)):
        return known
    known, decided = deepcopy((known, decided))  # the caller's stay as they are if this is rolled back
    async with async_atomic():
        for alert in decided.removed:
            await Alert.async_objects.filter(pk=alert.pk, status=PENDING).adelete()
            del known.open[alert.rule]
        for alert, fields in sorted(decided.changed, key=lambda pair: pair[0].pk):
            if await Alert.async_objects.filter(pk=alert.pk, status=alert.status).aupdate(**fields):
                apply(known, alert, fields)
            else:
                del known.open[alert.rule]
        for alert in decided.begun:
            await Alert.async_objects.abulk_create([alert], ignore_conflicts=True)
            if await Alert.async_objects.filter(pk=alert.pk).aexists():
                known.open[alert.rule] = alert
        await _tell(known, now)
    return known


def apply(known: Known, alert: Alert, fields: Fields) -> None:
    """Bring an alert in memory up to date."""
    for name, value in fields.items():
        setattr(alert, name, value)
    if alert.status == RESOLVED:
        known.open.pop(alert.rule, None)
        if alert.told_at and alert not in known.closed:
            known.closed.append(alert)


def _may_be_told(known: Known) -> bool:
    return bool(known.closed or any(alert.status == FIRING for alert in known.open.values()))


async def _tell(known: Known, now: datetime) -> None:
    told = []
    for alert in sorted([*known.open.values(), *known.closed], key=lambda one: one.pk):
        if not states.is_to_be_told(alert, known.silences, [], now):
            continue
        recent = await told_lately(alert, now)
        if states.is_to_be_told(alert, known.silences, recent, now) and await _mark_told(alert, now):
            told.append(Told(alert, len(recent)))
    if told:
        known.messages_wait = True
        await AlertMessage.async_objects.abulk_create(messages.about(told, now))


async def _mark_told(alert: Alert, now: datetime) -> bool:
    as_read = {"status": alert.status, "told_at": alert.told_at, "told_resolved_at": alert.told_resolved_at}
    fields = states.telling(alert, now)
    moved = await Alert.async_objects.filter(pk=alert.pk, **as_read).aupdate(**fields)
    if moved:
        for name, value in fields.items():
            setattr(alert, name, value)
    return bool(moved)


async def restore(alerts: Sequence[Alert], made: Sequence[AlertMessage]) -> None:
    """Store what a host's evaluator did while PostgreSQL was away: it alone writes the alerts of its host."""
    async with async_atomic():
        for alert in alerts:
            if alert.status != RESOLVED:
                alert.pk = await _open_id(alert) or alert.pk
            fields = {one.name: getattr(alert, one.name) for one in Alert._meta.concrete_fields if one.name != "id"}
            if not await Alert.async_objects.filter(pk=alert.pk).aupdate(**fields):
                await Alert.async_objects.abulk_create([alert], ignore_conflicts=True)
        for message in made:
            await AlertMessage.async_objects.abulk_create([message], ignore_conflicts=True)


async def _open_id(alert: Alert) -> UUID | None:
    """The id of the open alert of the same rule and host, which began before this process knew of it."""
    return (
        await Alert.async_objects.filter(OPEN, rule=alert.rule, host=alert.host).values_list("pk", flat=True).afirst()
    )


async def record_watch(host: str, evaluator: str, unknown: dict[str, str], now: datetime) -> None:
    """Store who evaluates, and which rules it cannot."""
    fields = {"evaluator": evaluator, "at": now, "unknown": unknown}
    if not await AlertWatch.async_objects.filter(pk=host).aupdate(**fields):
        await AlertWatch.async_objects.abulk_create([AlertWatch(host=host, **fields)], ignore_conflicts=True)


# -- Messages ----------------------------------------------------------------------------------------------------


async def claim_message(channel: AlertMessage.Channel, now: datetime) -> AlertMessage | None:
    """The message of a channel that has been due the longest: no other process has it before CLAIM is over. None if none is due."""
    due = Q(due_at__lte=now) | Q(due_at__gt=now + LONGEST_WAIT)
    waiting = AlertMessage.async_objects.filter(due, channel=channel).order_by("due_at", "id")
    for message in [one async for one in waiting[:AT_ONCE]]:
        found = AlertMessage.async_objects.filter(pk=message.pk, due_at=message.due_at)
        message.due_at = now + CLAIM
        if await found.aupdate(due_at=message.due_at):
            return message
    return None


async def save_attempt(message: AlertMessage, claimed: datetime | None) -> None:
    """Store how an attempt ended, unless another process has claimed the message since; `claimed` is its due_at before."""
    names = ("attempts", "due_at", "sent_at", "given_up_at", "error")
    mine = AlertMessage.async_objects.filter(pk=message.pk, due_at=claimed)
    await mine.aupdate(**{name: getattr(message, name) for name in names})
