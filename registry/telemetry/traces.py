"""Traces: spans of sampled work, and what identifies them. export.py sends them; registry.tenants.sampling decides what is sampled.

A trace belongs to one object, such as a payment. Its id and the id of its first span are derived from the object's own id, so
that every process knows both without asking another one, and nothing is stored (docs/decisions/043).
"""

import hashlib
import logging
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import NamedTuple, Self
from uuid import UUID

from django.conf import settings

from registry.telemetry import context, export
from registry.telemetry.export import Attributes, Event, Kind, Link

log = logging.getLogger(__name__)

on = bool(settings.OTEL_EXPORTER_OTLP_ENDPOINT)  # the one check where tracing is off

LINKS = 32  # from the first span of a commit to the other ones
TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")  # W3C Trace Context, version 00
RATIO = 2**64  # the sampled share of the numbers that the lower half of a trace id can be, as in TraceIdRatioBased


class Span(NamedTuple):
    """A span that is under way, or was: its place in its trace, and the object that the trace is about."""

    trace_id: int
    span_id: int
    parent: int  # id of the span above it; 0: it is the first one of its trace
    about: Attributes  # of every span of the trace
    links: tuple[Link, ...] = ()  # of this span

    def child(self) -> "Span":
        return Span(self.trace_id, random.getrandbits(64) or 1, self.span_id, self.about)

    @property
    def traceparent(self) -> str:
        """The header of W3C Trace Context, with the flag `sampled`."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-01"

    @property
    def link(self) -> Link:
        return self.trace_id, self.span_id

    @property
    def shown_id(self) -> str:
        """The trace's id as viewers show it."""
        return f"{self.trace_id:032x}"


# -- Ids ---------------------------------------------------------------------------------------------------------------

# With a key, so that a sender cannot choose ids that are always sampled.
# SECRET_KEY_FALLBACKS are of no use here: payments after a change of the key get other ids.
_keyed = hashlib.blake2b(key=hashlib.sha256(b"traces:" + settings.SECRET_KEY.encode()).digest(), digest_size=24)


type Id = UUID | int | str


def first_span(kind: str, tenant_id: int, id: Id) -> Span:
    """The first span of the trace of an object: `kind` such as payment, and its id as the API knows it."""
    ids = _digest(kind, tenant_id, id)
    about: dict[str, str | int] = {"registry.tenant.id": tenant_id, f"registry.{kind}.id": str(id)}
    return Span(int.from_bytes(ids[:16]), int.from_bytes(ids[16:]) or 1, 0, about)


def falls_within(rate: float, kind: str, tenant_id: int, id: Id) -> bool:
    """Whether the trace of an object is one of the share `rate` (0 to 1) of all traces. The same in every process."""
    return int.from_bytes(_digest(kind, tenant_id, id)[8:16]) < rate * RATIO


def _digest(kind: str, tenant_id: int, id: Id) -> bytes:
    keyed = _keyed.copy()
    keyed.update(b"%s:%d:%s" % (kind.encode(), tenant_id, id.bytes if isinstance(id, UUID) else str(id).encode()))
    return keyed.digest()


def harmless[**P](record: Callable[P, None]) -> Callable[P, None]:
    """Decorator: an error of what records spans is logged, and never fails the work that it describes."""

    @wraps(record)
    def recording(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            record(*args, **kwargs)
        except Exception:
            log.exception("spans were not recorded")

    return recording


# -- Recording ---------------------------------------------------------------------------------------------------------


def nanoseconds(began: float) -> int:
    """The time of day, in nanoseconds since 1970, of a moment of time.perf_counter()."""
    return time.time_ns() - int((time.perf_counter() - began) * 1e9)


def record(
    name: str,
    span: Span,
    *,
    began: float,
    kind: Kind = "internal",
    attributes: Attributes | None = None,
    links: Sequence[Link] = (),
) -> None:
    """Record a span that ends now; `began`: time.perf_counter(). It failed where `attributes` name an `error.type`."""
    end = time.time_ns()
    record_at(name, span, start=nanoseconds(began), end=end, kind=kind, attributes=attributes, links=links)


def record_at(
    name: str,
    span: Span,
    *,
    start: int,
    end: int,
    kind: Kind = "internal",
    attributes: Attributes | None = None,
    links: Sequence[Link] = (),
    events: Sequence[Event] = (),
) -> None:
    """`record` with times in nanoseconds since 1970."""
    export.add(
        export.Recorded(
            name=name,
            trace_id=span.trace_id,
            span_id=span.span_id,
            parent=span.parent,
            start=start,
            end=max(start, end),
            kind=kind,
            attributes={**span.about, **(attributes or {})},
            links=[*span.links, *links],
            events=events,
        )
    )


def record_shared(
    name: str, above: Sequence[Span], *, began: float, kind: Kind = "client", attributes: Attributes | None = None
) -> None:
    """Record what was done for several objects together, such as one commit: a span in each one's trace, with the same times.

    They link to the first of them, which links to the others.
    """
    spans = [one.child() for one in above]
    for span, links in linked(spans):
        record(name, span, began=began, kind=kind, attributes=attributes, links=links)


def linked(spans: Sequence[Span]) -> Iterator[tuple[Span, Sequence[Link]]]:
    """The spans of work that was done together, each with its links."""
    for number, span in enumerate(spans):
        others = spans[1 : LINKS + 1] if number == 0 else spans[:1]
        yield span, [one.link for one in others]


# -- Requests in and out -----------------------------------------------------------------------------------------------


@harmless
def record_request(scope: Mapping, spans: Sequence[Span], *, route: str, status: int, began: float) -> None:
    """Record an HTTP request that was answered, in the trace of each sampled object that it made (`context.TRACED`)."""
    attributes: dict[str, str | int] = {
        "http.request.method": scope["method"],
        "http.route": f"/{route}",
        "http.response.status_code": status,
        "url.scheme": scope.get("scheme", "http"),
        "registry.request.id": context.REQUEST.get(),
        "registry.tenant.slug": str(context.TENANT.get()),
    }
    if status >= 500:
        attributes["error.type"] = str(status)
    caller = link_of(next((value for name, value in scope["headers"] if name == b"traceparent"), b""))
    for span, links in linked(spans):
        record(
            f"{scope['method']} /{route}",
            span,
            began=began,
            kind="server",
            attributes=attributes,
            links=[*links, *caller],
        )


def link_of(traceparent: bytes) -> list[Link]:
    """A link to the span that a caller's header names; none if it names none. A caller decides nothing about our sampling."""
    found = TRACEPARENT.fullmatch(traceparent.decode("latin-1"))
    ids = (int(found[1], 16), int(found[2], 16)) if found else (0, 0)
    return [ids] if all(ids) else []


class Outgoing:
    """A request to another service that is under way: the header that it carries, and its answer's status."""

    def __init__(self, above: Span) -> None:
        self.span = above.child()
        self.status = 0

    @classmethod
    def current(cls) -> Self | None:
        """Of the sampled work that the running task does; None if there is none."""
        traced = context.TRACED.get()
        return cls(traced[0]) if traced else None

    @property
    def headers(self) -> dict[str, str]:
        return {"traceparent": self.span.traceparent}

    @contextmanager
    def to(self, method: str, host: str, port: int) -> Iterator[None]:
        """Record it at its end. Neither path nor query: the address of a webhook may contain a secret."""
        began = time.perf_counter()
        attributes: dict[str, str | int] = {"http.request.method": method, "server.address": host, "server.port": port}
        try:
            yield
        except BaseException as error:
            attributes["error.type"] = type(error).__name__
            raise
        finally:
            if self.status:
                attributes["http.response.status_code"] = self.status
            if self.status >= 400:
                attributes["error.type"] = str(self.status)
            harmless(record)(method, self.span, began=began, kind="client", attributes=attributes)
