"""The OpenTelemetry SDK, set up for spans that have ended and whose ids are given. Imported only where spans are recorded."""

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

from django.conf import settings
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from registry.redaction import redact_text
from registry.telemetry.export import BATCH, EVERY, EXPORT_LIMIT, QUEUE, Recorded

SAMPLED = TraceFlags(TraceFlags.SAMPLED)
KINDS = {kind.name.lower(): kind for kind in SpanKind}

# The SDK logs each failed request; export.py logs a receiver that is away once, and counts what was lost.
for name in ("opentelemetry.exporter", "opentelemetry.sdk"):
    logging.getLogger(name).setLevel("CRITICAL")


class _Ids(IdGenerator):
    """Gives the ids of the span that is being written."""

    trace_id = span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class _Exporter(OTLPSpanExporter):
    """Reports how many spans each request carried, and whether they were accepted."""

    def __init__(self, on_request: Callable[[int, bool], None]) -> None:
        # Headers, certificates and compression are read from the standard variables by the class itself.
        endpoint = f"{settings.OTEL_EXPORTER_OTLP_ENDPOINT.rstrip('/')}/v1/traces"
        super().__init__(endpoint=endpoint, timeout=EXPORT_LIMIT)
        self._on_request = on_request

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = super().export(spans)
        finally:
            self._on_request(len(spans), result is SpanExportResult.SUCCESS)
        return result


class Writer:
    """A provider with one thread, which sends what is written. Not for several threads at once."""

    def __init__(self, on_request: Callable[[int, bool], None]) -> None:
        """`on_request`: called by that thread after each request, with the number of spans, and whether they were accepted."""
        self._ids, self._exporter = _Ids(), _Exporter(on_request)
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=_resource(), shutdown_on_exit=False, id_generator=self._ids
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._exporter,
                max_queue_size=QUEUE,
                schedule_delay_millis=EVERY * 1000,
                max_export_batch_size=BATCH,
            )
        )
        self._tracer = self._provider.get_tracer("registry")

    def write(self, one: Recorded) -> None:
        self._ids.trace_id, self._ids.span_id = one.trace_id, one.span_id
        above = trace.set_span_in_context(NonRecordingSpan(_context(one.trace_id, one.parent)))
        span = self._tracer.start_span(
            one.name,
            context=above,
            kind=KINDS[one.kind],
            attributes=_clean(one.attributes),
            links=[trace.Link(_context(*link)) for link in one.links],
            start_time=one.start,
        )
        for name, at, attributes in one.events:
            span.add_event(name, _clean(attributes), at)
        if failure := one.attributes.get("error.type"):
            span.set_status(Status(StatusCode.ERROR, str(failure)))
        span.end(one.end)

    def shut_down(self) -> None:
        """Send what waits; this may take as long as the receiver does."""
        self._provider.shutdown()

    def abandon(self) -> None:
        """End `shut_down` soon, with what was not sent."""
        self._exporter.shutdown()


def _context(trace_id: int, span_id: int) -> SpanContext:
    """Without a span id it is not valid: then the span is the first one of its trace."""
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=SAMPLED)


def _clean(attributes: Any) -> dict[str, Any]:
    """Without secrets, whatever the texts came from, and without what is empty."""
    return {n: redact_text(v) if isinstance(v, str) else v for n, v in attributes.items() if v not in ("", None)}


def _resource() -> Resource:
    return Resource.create(
        {
            "service.name": settings.OTEL_SERVICE_NAME,
            "service.instance.id": f"{settings.REGISTRY_HOST}:{os.getpid()}",
            "process.pid": os.getpid(),
        }
    )
