"""Spans of work: the claim, each attempt, and the commit that settles it. Only of sampled rows; the hooks of `Work` describe them."""

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import ClassVar

from queueing.work.keyed import Key, Keyed
from queueing.work.table import WorkTable
from registry.telemetry import context, traces
from registry.telemetry.export import Attributes
from registry.telemetry.traces import Span
from registry.tenants.sampling import TracedObject, sampled


class TracedWork[I: Keyed, O: Keyed]:
    """The part of `Work` that records spans: hooks that describe its rows, and what the mechanism calls (docs/decisions/043)."""

    table: ClassVar[WorkTable]

    def __init__(self) -> None:
        self.traced: dict[Key, Span] = {}  # sampled rows in flight, with the first span of each one's trace

    # -- Hooks ---------------------------------------------------------------------------------------------------

    def traced_as(self, item: I) -> TracedObject | None:
        """The object whose trace shows the item; None: it is never traced."""
        return None

    def described(self, outcome: O) -> Attributes:
        """Attributes of the span of an attempt, with `error.type` if it failed. No secrets, and nothing of a payer."""
        return {}

    # -- The mechanism --------------------------------------------------------------------------------------------------

    @traces.harmless
    def trace_claim(self, items: Sequence[I], began: float) -> None:
        """Record the claim of the items that are sampled. `began`: time.perf_counter()."""
        if not traces.on or not items:
            return
        known = [(item.key, one) for item in items if (one := self.traced_as(item))]
        firsts = {key: first for key, one in known if (first := sampled(one))}
        self.traced.update(firsts)
        self._record_shared("claim", "receive", list(firsts.values()), len(items), began)

    async def act_traced(self, act: Callable[[Sequence[I]], Awaitable[Sequence[O]]], items: Sequence[I]) -> Sequence[O]:
        """The outcomes of an attempt. Requests that it makes to other services carry its span."""
        keys = [item.key for item in items if item.key in self.traced]
        if not keys:
            return await act(items)
        spans = [self.traced[key].child() for key in keys]
        context.TRACED.set(tuple(spans))  # of this task, which does nothing else
        began, outcomes, failure = time.perf_counter(), list[O](), "canceled"
        try:
            outcomes, failure = list(await act(items)), ""
            return outcomes
        except Exception as error:
            failure = type(error).__name__
            raise
        finally:
            of = dict(zip(keys, spans, strict=True))
            self._record_attempt(
                getattr(act, "__name__", "send"), of, outcomes, rows=len(items), failure=failure, began=began
            )

    @traces.harmless
    def _record_attempt(
        self, name: str, spans: dict[Key, Span], outcomes: Sequence[O], *, rows: int, failure: str, began: float
    ) -> None:
        """`name`: send or resolve."""
        described = {outcome.key: self.described(outcome) for outcome in outcomes if outcome.key in spans}
        base = {**self._messaging(name, "process", rows), "error.type": failure}
        for key, (span, links) in zip(spans, traces.linked(list(spans.values())), strict=True):
            attributes, title = {**base, **described.get(key, {})}, f"{name} {self.table.queue}"
            traces.record(title, span, began=began, kind="consumer", attributes=attributes, links=links)

    @traces.harmless
    def trace_commit(self, written: Iterable[Key], rows: int, began: float) -> None:
        """Record a commit in the traces of the rows that it wrote. `rows`: how many outcomes it had."""
        firsts = [first for key in written if (first := self.traced.get(key))]
        self._record_shared("settle", "settle", firsts, rows, began)

    def forget_traced(self, items: Iterable[I]) -> None:
        for item in items:
            self.traced.pop(item.key, None)

    def _record_shared(self, name: str, type: str, firsts: Sequence[Span], rows: int, began: float) -> None:
        attributes = {**self._messaging(name, type, rows), "db.system.name": "postgresql"}
        traces.record_shared(f"{name} {self.table.queue}", firsts, began=began, attributes=attributes)

    def _messaging(self, name: str, type: str, rows: int) -> dict[str, str | int]:
        """Attributes of OpenTelemetry's conventions for messaging: a work table is the queue, its rows are the messages."""
        return {
            "messaging.system": "registry",
            "messaging.destination.name": self.table.queue,
            "messaging.operation.name": name,
            "messaging.operation.type": type,
            "messaging.batch.message_count": rows,
        }
