"""Messages about alerts: the text of an e-mail and the JSON of a webhook. One message for all that changed in an evaluation."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import uuid4

from django.conf import settings

from registry.edge.api import ENCODER, iso
from registry.models import Alert, AlertMessage
from registry.operators.alerts.expressions import shown
from registry.operators.alerts.rules import rule_of
from registry.operators.alerts.states import FLAPPING
from registry.operators.attention import Severity

TYPE, TEST = "alerts.changed", "alerts.test"
SUBJECT = 200  # characters


class Told(NamedTuple):
    """An alert that a message is about, and how many messages there were about it within the last hour."""

    alert: Alert
    recent: int = 0


def channels() -> list[AlertMessage.Channel]:
    """The channels that the settings name."""
    named = {
        AlertMessage.Channel.EMAIL: bool(settings.ALERT_EMAIL),
        AlertMessage.Channel.WEBHOOK: bool(settings.ALERT_WEBHOOK_URL),
    }
    return [channel for channel, is_set in named.items() if is_set]


def about(told: Sequence[Told], now: datetime) -> list[AlertMessage]:
    """A message about these alerts for each channel, not stored; none where no channel is set."""
    told = sorted(told, key=lambda one: (one.alert.status != Alert.Status.FIRING, one.alert.severity, one.alert.rule))
    payload = {
        "type": TYPE,
        "timestamp": iso(now),
        "data": {"service": service(), "alerts": [_json(*one) for one in told]},
    }
    return _for_channels(_subject([one.alert for one in told]), _text(told), payload, now)


def test(now: datetime) -> list[AlertMessage]:
    """A message that says it is a test, for each channel."""
    payload = {"type": TEST, "timestamp": iso(now), "data": {"service": service(), "alerts": []}}
    text = f"This is a test of the alerts of {service()}. Nothing is wrong: this channel works."
    return _for_channels("[Registry] Test of the alerts", text, payload, now)


def service() -> str:
    """The public address of the service, or without one the name of this host."""
    return settings.REGISTRY_URL or settings.REGISTRY_HOST


def _for_channels(subject: str, text: str, payload: dict[str, Any], now: datetime) -> list[AlertMessage]:
    message_id = f"msg_{uuid4().hex}"
    bodies = {AlertMessage.Channel.EMAIL: text, AlertMessage.Channel.WEBHOOK: ENCODER.encode(payload).decode()}
    return [
        AlertMessage(
            message_id=message_id,
            channel=channel,
            subject=subject[:SUBJECT],
            body=bodies[channel],
            created_at=now,
            due_at=now,
        )
        for channel in channels()
    ]


# -- JSON ---------------------------------------------------------------------------------------------------------


def _json(alert: Alert, recent: int) -> dict[str, Any]:
    rule = rule_of(alert.rule)
    return {
        "id": str(alert.pk),
        "rule": alert.rule,
        "status": alert.status,
        "severity": Severity(alert.severity).name.lower(),
        "host": alert.host or None,
        "sentence": alert.sentence,
        "expression": str(rule.condition) if rule else None,
        "value": alert.value,
        "samples": alert.samples,
        "since": iso(alert.since),
        "firedAt": iso(alert.fired_at) if alert.fired_at else None,
        "resolvedAt": iso(alert.resolved_at) if alert.resolved_at else None,
        "messagesWithinTheHour": recent,
        "runbook": runbook_of(alert),
    }


def runbook_of(alert: Alert) -> str:
    """The address of the rule's section of the runbook."""
    rule = rule_of(alert.rule)
    return f"{settings.REGISTRY_URL}/admin/runbook/#{rule.runbook if rule else alert.rule}"


# -- Text ---------------------------------------------------------------------------------------------------------


def _subject(alerts: Sequence[Alert]) -> str:
    if len(alerts) == 1:
        [alert] = alerts
        return f"[Registry] {alert.status}: {alert} ({Severity(alert.severity).name.lower()})"
    firing = sum(alert.status == Alert.Status.FIRING for alert in alerts)
    parts = [f"{number} {word}" for number, word in ((firing, "firing"), (len(alerts) - firing, "resolved")) if number]
    return f"[Registry] {', '.join(parts)}"


def _text(told: Sequence[Told]) -> str:
    return "\n\n".join(_paragraph(*one) for one in told) + f"\n\n{service()}\n"


def _paragraph(alert: Alert, recent: int) -> str:
    lines = [f"{alert.status.upper()} {Severity(alert.severity).name.lower()}: {alert}", alert.sentence]
    if alert.value is not None:
        rule = rule_of(alert.rule)
        lines.append(f"Value: {shown(alert.value)}{f' of {rule.condition}' if rule else ''}")
    lines += [f"  {shown(one['value'])} {labels(one['labels'])}" for one in alert.samples if one["labels"]]
    lines.append(f"Since {alert.since:%Y-%m-%d %H:%M:%S} UTC")
    if alert.resolved_at:
        lines[-1] += f", resolved {alert.resolved_at:%Y-%m-%d %H:%M:%S} UTC"
    if recent >= FLAPPING:
        lines.append(f"It changes often: {recent} messages within the last hour.")
    return "\n".join([*lines, f"Runbook: {runbook_of(alert)}"])


def labels(given: dict[str, str]) -> str:
    """Labels for people: queue=payments, pool=slow."""
    return ", ".join(f"{name}={value}" for name, value in sorted(given.items()))
