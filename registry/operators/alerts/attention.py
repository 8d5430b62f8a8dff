"""Sources of attention: whether the alert rules are evaluated, and whether their messages arrive. For operators only."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db.models import Q

from registry.data import clock
from registry.models import AlertMessage, AlertWatch
from registry.operators.alerts import messages, rules
from registry.operators.alerts.states import UNKNOWN_AFTER, WRITE_EVERY
from registry.operators.attention import Item, Severity, counted, source
from registry.operators.cells import address_of_list, ago

LATE = timedelta(minutes=5)  # since a message was made
SHOWN_FOR = timedelta(days=2)  # that a message which was given up is shown


@source("alerts.evaluation")
async def evaluation(tenant_ids: Sequence[int] | None) -> list[Item]:
    if tenant_ids is not None:
        return []
    now = clock.now()
    watches = [one async for one in AlertWatch.async_objects.all()]
    late = [one for one in watches if now - one.at > UNKNOWN_AFTER + WRITE_EVERY]
    unknown = sorted({name for one in watches for name in one.unknown})
    items = [_late(one, now) for one in late]
    if unknown:
        said = f"{counted(len(unknown), 'alert rule')} cannot be evaluated: the metrics of {', '.join(unknown)} cannot be read."
        items.append(Item(severity=Severity.WARNING, sentence=said, count=len(unknown), known=False))
    if items:
        return items
    if not watches:
        said = "The alert rules were not evaluated yet. A web process does so within seconds of its start."
        return [Item(severity=Severity.WELL, sentence=said)]
    number = len(rules.rules())
    nobody = "" if messages.channels() else " Nobody is told: ALERT_EMAIL and ALERT_WEBHOOK_URL are not set."
    return [Item(severity=Severity.WELL, sentence=f"{counted(number, 'alert rule')} evaluated.{nobody}", count=number)]


def _late(watch: AlertWatch, now: datetime) -> Item:
    whose = f"of the host {watch.host}" if watch.host else "of the service"
    age = ago((now - watch.at).total_seconds())
    said = f"The alert rules {whose} have not been evaluated for {age}: what is wrong there is told to nobody."
    return Item(severity=Severity.WARNING, sentence=said, since=watch.at)


@source("alerts.messages")
async def undelivered(tenant_ids: Sequence[int] | None) -> list[Item]:
    """Messages that were given up of late, and those that are late."""
    if tenant_ids is not None:
        return []
    now = clock.now()
    late = Q(due_at__isnull=False, created_at__lt=now - LATE) | Q(given_up_at__gt=now - SHOWN_FOR)
    found = [one async for one in AlertMessage.async_objects.filter(late).order_by("-id")[:100]]
    if not found:
        return []
    newest = found[0]
    channels = " and ".join(sorted({one.channel for one in found}))
    said = f"{counted(len(found), 'message')} about alerts did not arrive by {channels}. The last error: {newest.error or 'none yet'}."
    return [
        Item(
            severity=Severity.CRITICAL if any(one.given_up_at for one in found) else Severity.WARNING,
            sentence=said,
            count=len(found),
            since=min(one.created_at for one in found),
            action="See the messages",
            admin=address_of_list(AlertMessage),
        )
    ]
