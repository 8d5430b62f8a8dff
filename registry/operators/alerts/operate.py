"""Guarded actions on alerts: silence one for a time, and end a silence."""

from collections.abc import Callable
from datetime import timedelta

from django.db.models.functions import Now
from psycopg import AsyncConnection

from registry.data import clock
from registry.models import Alert, AlertSilence
from registry.operators.confirm import Confirmed, Perform
from registry.operators.decide import Done, Moved, decide
from registry.operators.rows import guarded

LONGEST = timedelta(days=30)  # of a silence: what is quiet for longer is a rule to change


def _silencing(duration: timedelta) -> Perform:
    async def perform(confirmed: Confirmed) -> Done:
        rows: list[Alert] = list(confirmed.action.rows)

        async def move(_: AsyncConnection) -> list[Moved]:
            now = clock.now()
            made = [
                AlertSilence(
                    rule=row.rule,
                    host=row.host,
                    starts_at=now,
                    ends_at=now + duration,
                    actor=confirmed.actor,
                    why=confirmed.reason,
                )
                for row in rows
            ]
            await AlertSilence.async_objects.abulk_create(made)
            return [Moved(target=f"alert {one}", detail={"until": one.ends_at.isoformat()}) for one in made]

        moved = await decide(
            action=confirmed.action.name, actor=confirmed.actor, reason=confirmed.reason, move=move, repeatable=False
        )
        return Done(rows=len(moved))

    return perform


def _silence(name: str, duration: timedelta, label: str) -> Callable:
    return guarded(
        f"alert.{name}",
        label=label,
        warning="Nothing is sent about these alerts in this time. They are still shown. What still fires at its end is sent then.",
        expects={"resolved_at": None},
        perform=_silencing(duration),
    )


SILENCE_HOUR = _silence("silence_hour", timedelta(hours=1), "Silence for 1 hour")
SILENCE_DAY = _silence("silence_day", timedelta(days=1), "Silence for 1 day")
END_SILENCES = guarded(
    "alertsilence.end",
    label="End now",
    warning="Alerts of these rules are sent again; those that fire now, at once.",
    expects={"ends_at__gt": Now()},
    sets={"ends_at": Now()},
)
