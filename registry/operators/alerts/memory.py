"""What a host's evaluator keeps while PostgreSQL is away: its alerts as they are now, and the messages that it sends itself."""

from collections import deque
from copy import deepcopy
from datetime import datetime
from uuid import UUID

from registry.models import Alert, AlertMessage
from registry.operators.alerts import messages, states, store
from registry.operators.alerts.messages import Told
from registry.operators.alerts.store import Decided, Known

MOST = 200  # alerts, messages and times that are kept; the oldest are forgotten


class Memory:
    """Alerts and messages that PostgreSQL does not have yet."""

    def __init__(self) -> None:
        self.known = Known()  # as stored last, and changed since
        self.messages: deque[AlertMessage] = deque(maxlen=MOST)
        self._changed: dict[UUID, Alert] = {}
        self._told: deque[tuple[str, datetime]] = deque(maxlen=MOST)  # rules, and when a message was made about them

    @property
    def is_used(self) -> bool:
        """Whether something is not stored."""
        return bool(self._changed or self.messages)

    def begin(self, known: Known) -> None:
        """Everything is stored: go on from there."""
        self.known = deepcopy(known)
        self._changed.clear()
        self.messages.clear()

    def alerts(self) -> list[Alert]:
        """Alerts that changed; resolved ones first, as only one of a rule may be open."""
        return sorted(self._changed.values(), key=lambda alert: (alert.status != states.RESOLVED, alert.since))

    # -- Changes ---------------------------------------------------------------------------------------------------

    def save(self, decided: Decided, now: datetime) -> None:
        """Apply what was decided, and make messages about what there is to tell."""
        for alert in decided.removed:
            self.known.open.pop(alert.rule, None)
            self._changed.pop(alert.pk, None)
        for alert, fields in decided.changed:
            store.apply(self.known, alert, fields)
            self._keep(alert)
        for alert in decided.begun:
            self.known.open[alert.rule] = alert
            self._keep(alert)
        self._tell(now)

    def _keep(self, alert: Alert) -> None:
        self._changed[alert.pk] = alert
        if len(self._changed) > MOST:
            del self._changed[next(iter(self._changed))]

    def _tell(self, now: datetime) -> None:
        told = []
        for alert in [*self.known.open.values(), *self.known.closed]:
            recent = [at for rule, at in self._told if rule == alert.rule and now - at < states.HOUR]
            if states.is_to_be_told(alert, self.known.silences, recent, now):
                store.apply(self.known, alert, states.telling(alert, now))
                self._keep(alert)
                self._told.append((alert.rule, now))
                told.append(Told(alert, len(recent)))
        self.known.closed = [alert for alert in self.known.closed if not alert.told_resolved_at]
        if told:
            self.messages.extend(messages.about(told, now))

    # -- Messages ------------------------------------------------------------------------------------------------

    def due(self, channel: AlertMessage.Channel, now: datetime) -> list[AlertMessage]:
        """The messages to send in a channel now, the one that has been due the longest first."""
        mine = [(one.due_at, one) for one in self.messages if one.channel == channel and one.due_at]
        return [message for at, message in sorted(mine, key=lambda pair: pair[0]) if at <= now]

    def unsent(self) -> list[AlertMessage]:
        return [message for message in self.messages if message.due_at]
