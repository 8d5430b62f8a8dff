"""What an alert becomes with each evaluation, and what there is to tell: pure decisions, stored by store.py.

    (condition holds) → pending → firing (once it held for the rule's `for_`) → resolved (once it did not hold for KEEP_FIRING)

A pending alert whose condition no longer holds is removed. While the condition is unknown nothing changes; a pending alert that
was unknown for long begins anew, because nobody knows that its condition held all the time.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from registry.models import Alert, AlertSilence
from registry.operators.alerts.measuring import Measured
from registry.operators.alerts.rules import KEEP_FIRING, AlertRule

PENDING, FIRING, RESOLVED = Alert.Status
UNKNOWN_AFTER = timedelta(seconds=60)  # without a reading: then it is said that the alert's state is unknown
WRITE_EVERY = timedelta(seconds=30)  # between two writes of an alert that only has another value
REMOVED_AFTER = timedelta(
    minutes=10
)  # without an evaluation, an alert of a rule that this version does not have is resolved
SLACK = timedelta(
    seconds=1
)  # evaluations do not begin exactly on time: half of them would decide one evaluation too late
FLAPPING = 6  # messages about an alert within an hour; beyond that one for each HELD_FOR
HOUR = timedelta(hours=1)
HELD_FOR = timedelta(minutes=15)

type Fields = dict[str, Any]


# -- States ------------------------------------------------------------------------------------------------------


def begun(rule: AlertRule, host: str, measured: Measured, now: datetime) -> Alert:
    """A new alert of a rule whose condition holds."""
    fires = rule.for_ == 0
    return Alert(
        id=uuid4(),
        rule=rule.name,
        host=host,
        status=FIRING if fires else PENDING,
        since=now,
        fired_at=now if fires else None,
        **_seen(rule, measured, now),
    )


def changes(rule: AlertRule, alert: Alert, measured: Measured, now: datetime) -> Fields | None:
    """The fields of an open alert that change now; None: it is removed, because it never fired."""
    if measured.holds is None:
        return {"clear_since": None} if alert.clear_since else {}
    if measured.holds:
        seen = _seen(rule, measured, now)
        if alert.status == PENDING and (is_unknown(alert, now) or alert.since > now):
            return {"since": now, **seen}
        if alert.status == PENDING and now - alert.since >= timedelta(seconds=rule.for_) - SLACK:
            return {"status": FIRING, "fired_at": now, **seen}
        if alert.clear_since:
            return {"clear_since": None, **seen}
        return seen if abs(now - alert.read_at) >= WRITE_EVERY or alert.samples != seen["samples"] else {}
    if alert.status == PENDING:
        return None
    if alert.clear_since is None or alert.clear_since > now:  # the clock was set back
        return {"clear_since": now, "read_at": now}
    if now - alert.clear_since >= timedelta(seconds=KEEP_FIRING) - SLACK:
        return resolved(now)
    return {}


def resolved(now: datetime) -> Fields:
    return {"status": RESOLVED, "resolved_at": now, "read_at": now}


def _seen(rule: AlertRule, measured: Measured, now: datetime) -> Fields:
    return {
        "severity": int(rule.severity),
        "sentence": rule.sentence[:500],
        "value": measured.value,
        "samples": [one._asdict() for one in measured.samples],
        "read_at": now,
    }


def is_unknown(alert: Alert, now: datetime) -> bool:
    """Whether the state of an open alert is unknown: its metric was not read for a while."""
    return alert.status != RESOLVED and now - alert.read_at > UNKNOWN_AFTER + WRITE_EVERY


# -- What there is to tell -----------------------------------------------------------------------------------------


def silence_of(alert: Alert, silences: Iterable[AlertSilence], now: datetime) -> AlertSilence | None:
    """The silence that holds for the alert now; the one that ends last."""
    holding = [one for one in silences if _covers(one, alert) and one.starts_at <= now < one.ends_at]
    return max(holding, key=lambda one: one.ends_at, default=None)


def _covers(silence: AlertSilence, alert: Alert) -> bool:
    return silence.rule == alert.rule and silence.host in ("", alert.host)


def is_to_be_told(alert: Alert, silences: Sequence[AlertSilence], told: Sequence[datetime], now: datetime) -> bool:
    """Whether a message is due: it fires and nobody was told, or not since a silence ended; or it is resolved and somebody was told
    that it fired. Not while it is silenced, and not while it is held back because it changes too often (`told`: when messages
    were sent about alerts of the same rule and host)."""
    if silence_of(alert, silences, now) or is_held(told, now):
        return False
    if alert.status == FIRING:
        return alert.told_at is None or any(
            _covers(one, alert) and alert.told_at < one.ends_at <= now for one in silences
        )
    return alert.status == RESOLVED and alert.told_at is not None and alert.told_resolved_at is None


def is_held(told: Sequence[datetime], now: datetime) -> bool:
    """Whether messages are held back: FLAPPING within the last hour, the last one less than HELD_FOR ago."""
    recent = [at for at in told if now - at < HOUR]
    return len(recent) >= FLAPPING and now - max(recent) < HELD_FOR


def telling(alert: Alert, now: datetime) -> Fields:
    """The fields that say that a message was made."""
    return {"told_at": now} if alert.status == FIRING else {"told_resolved_at": now}
