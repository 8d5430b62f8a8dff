"""Open alerts for the operators' home and the command `alerts`: with their silences, and beside the items of attention."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from registry.data import clock
from registry.data.loop import sync_twin
from registry.models import Alert, AlertSilence
from registry.models.alerts import OPEN
from registry.operators.alerts import states, store
from registry.operators.alerts.expressions import shown
from registry.operators.alerts.messages import labels
from registry.operators.alerts.rules import rule_of
from registry.operators.attention import Item, Severity
from registry.operators.cells import address_of_list

MOST = 200  # alerts that are shown


@dataclass(frozen=True, slots=True)
class OpenAlert:
    """An alert that is pending or firing, and the silence that holds for it."""

    alert: Alert
    silence: AlertSilence | None
    is_unknown: bool

    @property
    def runbook(self) -> str:
        rule = rule_of(self.alert.rule)
        return rule.runbook if rule else self.alert.rule

    @property
    def state(self) -> str:
        """In a few words."""
        unknown = ", now unknown" if self.is_unknown else ""
        silenced = f", silenced until {self.silence.ends_at:%Y-%m-%d %H:%M:%S} UTC" if self.silence else ""
        return f"{self.alert.status}{unknown}{silenced}"

    @property
    def sentence(self) -> str:
        """The rule's sentence with the host, the value and the samples."""
        alert = self.alert
        where = f" On {alert.host}." if alert.host else ""
        parts = [f"{shown(one['value'])} ({labels(one['labels'])})" for one in alert.samples if one["labels"]]
        value = ", ".join(parts) or (shown(alert.value) if alert.value is not None else "")
        return f"{alert.sentence}{where}{f' Value: {value}.' if value else ''}"

    def item(self) -> Item:
        """As a line among the items of attention."""
        return Item(
            name=self.runbook,
            severity=Severity(self.alert.severity),
            sentence=self.sentence,
            since=self.alert.since,
            action="See the alerts",
            admin=address_of_list(Alert),
        )


async def open_alerts() -> list[OpenAlert]:
    """The most urgent first, then the oldest."""
    now = clock.now()
    found = [one async for one in Alert.async_objects.filter(OPEN).order_by("severity", "since")[:MOST]]
    silences = await store.silences(now)
    return [OpenAlert(one, states.silence_of(one, silences, now), states.is_unknown(one, now)) for one in found]


open_alerts_sync = sync_twin(open_alerts)


def combined(items: Sequence[Item], alerts: Sequence[OpenAlert]) -> list[tuple[Item, list[OpenAlert]]]:
    """One line for each thing: an item with the alerts of its name, and alerts of which no item speaks. The most urgent come first."""
    named: dict[str, list[OpenAlert]] = {}
    for alert in alerts:
        named.setdefault(alert.runbook, []).append(alert)
    alerted, lines = set(named), []
    for item in items:
        if item.severity is not Severity.WELL and (item.known or item.name not in alerted):
            mine = named.pop(item.name, [])
            lines.append((replace(item, severity=_most_urgent(item, mine)), mine))
        elif item.name not in alerted:  # else it is not well, or not unknown
            lines.append((item, []))
    lines += [(alert.item(), [alert]) for rest in named.values() for alert in rest]
    return sorted(lines, key=lambda line: (line[0].severity, line[0].since is None, line[0].since))


def _most_urgent(item: Item, alerts: Sequence[OpenAlert]) -> Severity:
    return min([item.severity, *(Severity(one.alert.severity) for one in alerts)])
