"""A receiver of traces: what a collector is, OTLP over HTTP with protobuf.

`python -m tests.bed.traces [PORT]` runs one for benchmarks, which says how many spans it received when it is stopped.
"""

import asyncio
import signal
import sys
from typing import Any, NamedTuple, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.bed.wire import Answer, Request, Server, Silence, response


class ReceivedSpan(NamedTuple):
    """A span as it arrived, with ids in hexadecimal."""

    name: str
    trace_id: str
    span_id: str
    parent: str  # empty: it is the first one of its trace
    kind: str  # SERVER, CLIENT, …
    start: int  # nanoseconds
    end: int
    failed: bool
    attributes: dict[str, Any]
    links: list[tuple[str, str]]
    events: list[tuple[str, int]]
    resource: dict[str, Any]

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-01"


class TraceReceiver:
    """`async with TraceReceiver() as receiver:` then `receiver.url`, `receiver.spans`; well until told otherwise."""

    def __init__(self, *, port: int = 0) -> None:
        self.spans: list[ReceivedSpan] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.status = 200
        self.silent = False
        self._server = Server(self._receive, port)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._server.__aexit__(*error)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.port}"

    def of(self, trace_id: str) -> list[ReceivedSpan]:
        """The spans of one trace, in the order in which they began."""
        return sorted((span for span in self.spans if span.trace_id == trace_id), key=lambda span: span.start)

    def named(self, name: str) -> list[ReceivedSpan]:
        return [span for span in self.spans if span.name == name]

    def _receive(self, request: Request) -> Answer:
        if (request.method, request.target) != ("POST", "/v1/traces"):
            return response(404)
        self.headers.append({"content-type": request.header("content-type"), "x-key": request.header("x-key")})
        if self.silent:
            return Silence()
        if self.status != 200:
            return response(self.status)
        self.bodies.append(request.body)
        sent = ExportTraceServiceRequest.FromString(request.body)
        for one in sent.resource_spans:
            for scope in one.scope_spans:
                self.spans += [_received(span, _values(one.resource.attributes)) for span in scope.spans]
        return response(200, ExportTraceServiceResponse().SerializeToString())


def _received(span: Span, resource: dict[str, Any]) -> ReceivedSpan:
    return ReceivedSpan(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        failed=span.status.code == 2,
        attributes=_values(span.attributes),
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        events=[(event.name, event.time_unix_nano) for event in span.events],
        resource=resource,
    )


def _values(pairs: Any) -> dict[str, Any]:
    def value(pair: KeyValue) -> Any:
        return getattr(pair.value, pair.value.WhichOneof("value") or "string_value")

    return {pair.key: value(pair) for pair in pairs}


# -- In a process of its own, for benchmarks ---------------------------------------------------------------------


async def serve(port: int) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with TraceReceiver(port=port) as receiver:
        print(f"ready {receiver.url}", flush=True)
        await stopped.wait()
        print(f"{len(receiver.spans)} spans", flush=True)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
