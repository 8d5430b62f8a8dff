"""The timeline of a payment's page: its states in order, each attempt under the state that it was made in, repetitions folded.

No I/O. Events and attempts are those of payments.pages.facts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from payments.books.history import HistoryAttempt, HistoryEvent
from payments.pages.codes import words
from payments.states import (
    LOOKS,
    PROCESSING,
    QUEUED,
    REFUND_LOOKS,
    REVERSAL_LOOKS,
    SUCCEEDED,
    UNCERTAIN,
    Look,
    RefundStatus,
    Reversal,
)
from registry.templatetags.figures import span

OUTCOMES = {
    "booked": ("●", "green", "booked"),
    "declined": ("✕", "red", "declined"),
    "not_booked": ("✕", "grey", "not booked"),
    "unknown": ("◑", "amber", "no clear answer"),
    "requires_action": ("◐", "violet", "waits for an action"),
    "canceled": ("–", "grey", "canceled"),
    "": ("◔", "blue", "in progress"),
}
DISPUTED = REVERSAL_LOOKS[Reversal.DISPUTED]
KINDS = {  # of events without a change of status
    "refund.created": ("Refund requested", REFUND_LOOKS[RefundStatus.OWED]),
    "refund.returned": ("Refunded", REVERSAL_LOOKS[Reversal.REFUNDED]),
    "refund.failed": ("Refund failed", REFUND_LOOKS[RefundStatus.FAILED]),
    "dispute.opened": ("Disputed", DISPUTED),
    "dispute.updated": ("Dispute updated", DISPUTED),
    "dispute.closed": ("Dispute closed", DISPUTED),
}
TOLD_TO_PAYERS = frozenset({"", "refund.returned"})  # kinds


@dataclass(kw_only=True)
class Tries:
    """Attempts in a row at one processor with the same result, as one entry."""

    first: int
    last: int
    processor: str | None
    reason: str
    outcome: str
    code: str
    latency_ms: int | None
    at: datetime  # of the last
    lookup: bool = False  # they asked about an earlier send

    @property
    def times(self) -> int:
        return self.last - self.first + 1

    @property
    def label(self) -> str:
        numbers = f"Attempt {self.first}" if self.times == 1 else f"Attempts {self.first}–{self.last}"
        return f"{numbers} at {self.processor or 'a processor'}"

    @property
    def repeated(self) -> str:
        """How often, where it was more than once."""
        verb = "asked" if self.lookup else "tried"
        return f"{verb} {self.times} times" if self.times > 1 else ""

    @property
    def shape(self) -> str:
        return OUTCOMES[self.outcome][0]

    @property
    def colour(self) -> str:
        return OUTCOMES[self.outcome][1]

    @property
    def word(self) -> str:
        known = OUTCOMES[self.outcome][2]
        return known if self.outcome == "booked" or not self.code else f"{known}: {words(self.code)}"

    @property
    def kind(self) -> tuple[str | None, str, str, bool]:
        """What repetitions have in common. The routing reason is not part of it: it names figures of the moment."""
        return self.processor, self.outcome, self.code, self.lookup


@dataclass(kw_only=True)
class TimelineStep:
    """A state that the payment was in, with the attempts made in it."""

    sequence: int
    at: datetime
    word: str
    look: Look
    detail: str
    after: str  # since acceptance
    status: str
    kind: str
    attempts: list[Tries] = field(default_factory=list)

    @property
    def alike(self) -> tuple[object, ...]:
        return self.status, self.detail, *(tries.kind for tries in self.attempts)


def timeline(events: Sequence[HistoryEvent], attempts: Sequence[HistoryAttempt]) -> list[TimelineStep]:
    """For members of the tenant: every state, with its attempts."""
    steps = [_step(event, events[0]) for event in events]
    codes = {attempt.number: attempt.code for attempt in attempts}
    for event, step in zip(events, steps, strict=True):
        step.detail = _in_words(step, codes.get(event.attempt, ""))
    for attempt in attempts:
        step = steps[_place(events, attempt)]
        _add(step.attempts, attempt)
        if step.detail == attempt.reason:
            step.detail = ""  # shown with the attempt
    return _folded(steps)


def payers_timeline(events: Sequence[HistoryEvent]) -> list[TimelineStep]:
    """For payers: states and times."""
    told = [event for event in events if event.kind in TOLD_TO_PAYERS]
    steps = [_step(event, events[0]) for event in told]
    for step in steps:
        step.detail = ""
    return _folded(steps)


def _step(event: HistoryEvent, first: HistoryEvent) -> TimelineStep:
    word, look = event.status.label.capitalize(), LOOKS[event.status]
    detail = "" if event.status is SUCCEEDED and not event.kind else event.detail  # the sentence above says it
    if event is first:
        word = "Accepted"
    if event.kind:
        word, look = KINDS.get(event.kind, (event.kind.replace(".", " ").capitalize(), DISPUTED))
    return TimelineStep(
        sequence=event.sequence,
        at=event.at,
        word=word,
        look=look,
        detail=detail,
        after=span(event.at - first.at),
        status=event.status,
        kind=event.kind,
    )


def _in_words(step: TimelineStep, code: str) -> str:
    """The detail without the processor's code, which is shown with the attempt where that did not end the payment."""
    if not code or not step.detail.endswith(f"({code})"):
        return step.detail
    shown_above = step.status in (QUEUED, UNCERTAIN)
    return "" if shown_above else step.detail.replace(f"({code})", f"({words(code)})")


def _place(events: Sequence[HistoryEvent], attempt: HistoryAttempt) -> int:
    """The number of the state that the attempt was made in: the one that it began, else the last one before it. Most look-ups of a
    payment in doubt have no event, because its status does not change."""
    before = 0
    for number, event in enumerate(events):
        if event.kind:
            continue
        if event.attempt == attempt.number and (event.status is PROCESSING or event.detail == attempt.reason):
            return number
        if event.attempt < attempt.number:
            before = number
    return before


def _add(entries: list[Tries], attempt: HistoryAttempt) -> None:
    lookup = attempt.reason.startswith("same processor")
    new = Tries(
        first=attempt.number,
        last=attempt.number,
        processor=attempt.processor,
        reason=attempt.reason,
        outcome=attempt.outcome,
        code=attempt.code,
        latency_ms=attempt.latency_ms,
        at=attempt.started_at,
        lookup=lookup,
    )
    under_way = lookup and not attempt.outcome and bool(entries) and entries[-1].lookup
    if entries and (under_way or entries[-1].kind == new.kind):
        _extend(entries[-1], new)
    else:
        entries.append(new)


def _extend(entry: Tries, new: Tries) -> None:
    entry.last, entry.at, entry.reason, entry.latency_ms = new.last, new.at, new.reason, new.latency_ms


def _folded(steps: list[TimelineStep]) -> list[TimelineStep]:
    """Fold rounds of processing and queued that ended alike: a processor that is away gives many."""
    folded: list[TimelineStep] = []
    for step in steps:
        folded.append(step)
        if _ends_round(folded) and len(folded) > 3 and _ends_round(folded[:-2]):
            *_, first, end, again, latest = folded
            if (first.alike, end.alike) == (again.alike, latest.alike):
                for entry, new in zip(first.attempts, again.attempts, strict=True):
                    _extend(entry, new)
                folded[-4:] = [first, latest]
    return folded


def _ends_round(steps: list[TimelineStep]) -> bool:
    states = [(step.status, step.kind) for step in steps[-2:]]
    return states == [(PROCESSING, ""), (QUEUED, "")]
