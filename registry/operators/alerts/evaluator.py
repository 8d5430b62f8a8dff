"""Evaluates alert rules in the web processes: one process for the service's rules, one on each host for the host's.

The service's is elected by a lease in PostgreSQL, a host's by a lock on a file in its data folder, which needs no database and
ends with the process. A host's rules are also evaluated while PostgreSQL is away: what changes is kept in memory, told at once,
and stored when it is back. `increase` and `rate` of a process that takes over begin with what it reads itself (measuring.py).
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Protocol

from django.conf import settings

from registry.data import clock, refusals
from registry.data.lease import RENEW_EVERY, HeldLease, new_holder
from registry.data.loop import PerLoop, background
from registry.errors import Unavailable
from registry.models import Alert, AlertMessage
from registry.operators.alerts import sending, states, store
from registry.operators.alerts.lock import HeldFile
from registry.operators.alerts.measuring import Measure, Measured
from registry.operators.alerts.memory import Memory
from registry.operators.alerts.readings import MetricReader
from registry.operators.alerts.rules import AlertRule, Scope, rule_of, rules
from registry.operators.alerts.store import Decided, Known
from registry.telemetry import metrics

log = logging.getLogger(__name__)

EVERY: dict[Scope, float] = {"service": 10.0, "host": 5.0}  # seconds between two evaluations
CLOSE_WITHIN = 1.0  # seconds for messages under way at the end of a process
SAVE_WITHIN = 600.0  # seconds in which the outcome of an attempt is to be stored; then the message may be sent again


class Election(Protocol):
    """Decides which process evaluates."""

    holder: str

    async def hold(self) -> bool:
        """Whether this process does, asked every RENEW_EVERY seconds. Never raises."""

    async def release(self) -> None: ...


class Clock:
    """The time by which rules are evaluated. Tests pass another one, and wait for no minutes."""

    def now(self) -> datetime:
        return clock.now()

    def monotonic(self) -> float:
        return time.monotonic()


class AlertEvaluator:
    """Evaluates the rules of one scope while it is elected."""

    def __init__(self, scope: Scope, host: str, election: Election, *, clock: Clock | None = None) -> None:
        self.scope, self.host, self.election = scope, host, election
        self._clock = clock or Clock()
        self.memory = Memory()  # what changed while PostgreSQL was away
        self._reader = MetricReader()
        self._measures: dict[AlertRule, Measure] = {}
        self._unknown: dict[str, datetime] = {}  # rules whose metric cannot be read, and since when
        self._recorded: tuple[datetime | None, list[str]] = (None, [])
        self._refused = 0  # saves that failed one after the other
        self._sending: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Evaluate every few seconds (EVERY), at once after being elected, until cancelled."""
        due = 0.0
        while True:
            refusals.expire()
            if not await self.election.hold():
                if due:
                    self._forget()
                due = 0.0
            elif (now := time.monotonic()) >= due:
                due = now + EVERY[self.scope]
                try:
                    await self.evaluate()
                except Exception:  # the next evaluation may succeed
                    log.exception("the alert rules were not evaluated", extra={"scope": self.scope})
            await asyncio.sleep(RENEW_EVERY)

    async def close(self) -> None:
        """Let another process take over; give messages under way a moment."""
        if self._sending:
            await asyncio.wait({self._sending}, timeout=CLOSE_WITHIN)
            self._sending.cancel()
            await asyncio.wait({self._sending}, timeout=CLOSE_WITHIN)  # its connections are closed
        if lost := self.memory.unsent():
            log.warning("messages about alerts were not sent", extra={"messages": len(lost)})
        self._forget()
        await self.election.release()

    def _forget(self) -> None:
        """Another process evaluates now: it starts its own windows, and so does this one if it is elected again."""
        self._measures.clear()
        self._unknown.clear()
        self._show({})

    # -- One evaluation ----------------------------------------------------------------------------------------

    async def evaluate(self) -> None:
        """Read, decide, store, tell."""
        now = self._clock.now()
        measured = await self._measure(now)
        try:
            known = await self._stored(measured, now)
        except Exception:  # such as a value that PostgreSQL does not take: a host tells all the same
            if self.scope == "service":
                raise
            log.exception("alerts were not stored", extra={"host": self.host})
            known = None
        if known is None:
            if self.scope == "service":
                return  # what its rules are about is in PostgreSQL too
            self.memory.save(self._decide(self.memory.known, measured, now), now)
            known = self.memory.known
        self._show(known.open)
        if self.memory.is_used or (known.messages_wait and self.scope == "service"):
            self._send()

    async def _stored(self, measured: dict[AlertRule, Measured], now: datetime) -> Known | None:
        """The alerts after this evaluation; None if they could not be stored. A save that fails once may have been committed all
        the same: the next evaluation sees that, and only a second failure counts."""
        try:
            known = await self._load(now)
        except Unavailable:
            return None
        decided = self._decide(known, measured, now)
        try:
            known = await store.bounded(lambda: store.save(known, decided, now))
        except Unavailable:
            self._refused += 1
            return known if self._refused == 1 else None
        self._refused = 0
        self.memory.begin(known)
        with suppress(Unavailable):
            await self._record(now)
        return known

    async def _measure(self, now: datetime) -> dict[AlertRule, Measured]:
        mine = rules(self.scope)
        readings = await self._reader.read({rule.condition.metric for rule in mine})
        at, measured = self._clock.monotonic(), {}
        for rule in mine:
            measure = self._measures.setdefault(rule, Measure(rule.condition))
            if rule.condition.metric in readings.unread:
                measured[rule] = measure.unread(at)
                self._unknown.setdefault(rule.name, now)
            else:
                measured[rule] = measure.read(readings.samples.get(rule.condition.metric, []), at)
                self._unknown.pop(rule.name, None)
        return measured

    async def _load(self, now: datetime) -> Known:
        """The stored alerts, after what changed while PostgreSQL was away was stored. Raises Unavailable (503)."""
        if self.memory.is_used:
            if self._is_sending:
                raise Unavailable("messages from memory are under way")  # stored now they would be sent twice
            alerts, made = self.memory.alerts(), list(self.memory.messages)
            await store.bounded(lambda: store.restore(alerts, made))
        known = await store.bounded(lambda: store.load(self.host, now))
        self.memory.begin(known)
        return known

    def _decide(self, known: Known, measured: dict[AlertRule, Measured], now: datetime) -> Decided:
        decided = Decided()
        for rule, found in measured.items():
            alert = known.open.get(rule.name)
            if alert is None:
                if found.holds:
                    decided.begun.append(states.begun(rule, self.host, found, now))
            elif (fields := states.changes(rule, alert, found, now)) is None:
                decided.removed.append(alert)
            elif fields:
                decided.changed.append((alert, fields))
        decided.changed += [(alert, states.resolved(now)) for alert in self._of_removed_rules(known, now)]
        return decided

    def _of_removed_rules(self, known: Known, now: datetime) -> Iterator[Alert]:
        """Alerts whose rule this version does not have. During an update another host may still have it: not at once."""
        for alert in known.open.values():
            if rule_of(alert.rule) is None and now - alert.read_at > states.REMOVED_AFTER:
                yield alert

    async def _record(self, now: datetime) -> None:
        unknown = {name: since for name, since in self._unknown.items() if now - since >= states.UNKNOWN_AFTER}
        at, names = self._recorded
        if at is None or now - at >= states.WRITE_EVERY or names != sorted(unknown):
            texts = {name: since.isoformat() for name, since in unknown.items()}
            await store.bounded(lambda: store.record_watch(self.host, self.election.holder, texts, now))
            self._recorded = (now, sorted(unknown))

    def _show(self, known: dict[str, Alert]) -> None:
        """In /metrics."""
        for rule in rules(self.scope):
            alert = known.get(rule.name)
            fires = alert is not None and alert.status == states.FIRING
            metrics.ALERTS_FIRING.labels(rule.name, rule.severity.name.lower()).set(fires)

    # -- Messages ------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        """Send what is due beside the evaluations: a receiver may take long to answer."""
        if not self._is_sending:
            self._sending = background(self._send_all())

    @property
    def _is_sending(self) -> bool:
        return self._sending is not None and not self._sending.done()

    async def _send_all(self) -> None:
        await asyncio.gather(*map(self._send_in, AlertMessage.Channel))

    async def _send_in(self, channel: AlertMessage.Channel) -> None:
        """Send what is due in a channel until one does not arrive. The others are tried from the next evaluation on: a receiver that
        does not answer delays what is due in the other channel, or is due then, by one attempt."""
        send = self._send_remembered if self.memory.is_used else self._send_stored
        try:
            while (message := await send(channel)) and not message.error:
                pass
        except Unavailable:
            pass  # they are due at the next evaluation
        except Exception:
            log.exception("messages about alerts were not sent")

    async def _send_remembered(self, channel: AlertMessage.Channel) -> AlertMessage | None:
        due = self.memory.due(channel, self._clock.now())
        if due:
            await sending.attempt(due[0])
        return due[0] if due else None

    async def _send_stored(self, channel: AlertMessage.Channel) -> AlertMessage | None:
        message = await store.bounded(lambda: store.claim_message(channel, self._clock.now()))
        if message:
            claimed = message.due_at
            await sending.attempt(message)
            await self._save_attempt(message, claimed)
        return message

    async def _save_attempt(self, message: AlertMessage, claimed: datetime | None) -> None:
        """Store how an attempt ended. While PostgreSQL is away, again and again: else the message would be sent again afterwards."""
        until = time.monotonic() + SAVE_WITHIN
        while True:
            try:
                return await store.bounded(lambda: store.save_attempt(message, claimed))
            except Unavailable:
                if time.monotonic() > until:
                    raise
            await asyncio.sleep(RENEW_EVERY)


class Evaluators:
    """Both evaluators of a web process."""

    def __init__(self) -> None:
        host = settings.REGISTRY_HOST
        lock = HeldFile(Path(settings.REGISTRY_DATA) / "alerts.lock", new_holder())
        self.all = [AlertEvaluator("service", "", HeldLease("alerts")), AlertEvaluator("host", host, lock)]
        self._tasks = [background(one.run()) for one in self.all]

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        self.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(one.close() for one in self.all))


evaluators: PerLoop[Evaluators] = PerLoop(Evaluators, close=Evaluators.close, stop=Evaluators.stop)


def start() -> None:
    """Start with a web process; `end_loop` ends it."""
    evaluators.get()
