"""Chores: what is deleted of alerts after a time, and the alerts of hosts that are gone."""

import logging
from datetime import datetime, timedelta

from registry.data import clock
from registry.data.chores import chore
from registry.models import Alert, AlertMessage, AlertSilence, AlertWatch
from registry.operators.alerts import states, store
from registry.operators.alerts.store import Decided

log = logging.getLogger(__name__)

ALERTS_KEPT = timedelta(days=90)  # resolved ones, and silences that ended
MESSAGES_KEPT = timedelta(days=30)
HOST_GONE = timedelta(days=1)  # without an evaluation


@chore("trim-alerts", every=3600)
async def trim() -> None:
    """Delete old alerts, silences and messages; resolve the alerts of hosts that are gone."""
    now = clock.now()
    await Alert.async_objects.filter(resolved_at__lt=now - ALERTS_KEPT).adelete()
    await AlertSilence.async_objects.filter(ends_at__lt=now - ALERTS_KEPT).adelete()
    await AlertMessage.async_objects.filter(created_at__lt=now - MESSAGES_KEPT, due_at=None).adelete()
    async for watch in AlertWatch.async_objects.filter(at__lt=now - HOST_GONE).exclude(host=""):
        await _forget(watch, now)


async def _forget(watch: AlertWatch, now: datetime) -> None:
    known = await store.load(watch.host, now)
    resolved = [(alert, states.resolved(now)) for alert in known.open.values() if alert.status == states.FIRING]
    removed = [alert for alert in known.open.values() if alert.status == states.PENDING]
    await store.save(known, Decided(changed=resolved, removed=removed), now)
    await AlertWatch.async_objects.filter(pk=watch.pk, at=watch.at).adelete()
    log.warning("a host is gone; its alerts are resolved", extra={"gone": watch.host, "alerts": len(resolved)})
