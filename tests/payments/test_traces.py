"""Traces of payments: from the request to the delivery of the webhook, at a receiver of OTLP."""

from tests.bed.receiver import Receiver
from tests.bed.traces import ReceivedSpan, TraceReceiver
from tests.conftest import at_work, eventually
from tests.queueing.hooks import delivering, endpoint, until
from tests.tracing import received

WHOLE = {
    "POST /payments", "accept payments", "claim payments", "send payments", "settle payments",
    "claim webhooks", "send webhooks", "settle webhooks",
}  # fmt: skip


def by_name(traces: TraceReceiver, trace_id: str) -> dict[str, ReceivedSpan]:
    """The spans of a trace that are named after what we do; requests to other services are named after their method."""
    return {span.name: span for span in traces.of(trace_id) if span.name != "POST"}


def requests_under(traces: TraceReceiver, span: ReceivedSpan) -> list[ReceivedSpan]:
    return [one for one in traces.of(span.trace_id) if one.name == "POST" and one.parent == span.span_id]


async def test_one_trace_leads_from_the_request_to_the_delivery(api, tenant, default):
    async with received() as traces, Receiver() as hooks:
        hook = await endpoint(tenant, hooks.url, "payment.succeeded")

        payment = await api.pay()
        async with at_work(), delivering():
            await api.until(payment["correlationId"], "succeeded")
            await until(hook, "delivered")
        await eventually(lambda: traces.named("settle webhooks"))

    [request] = traces.named("POST /payments")
    trace = by_name(traces, request.trace_id)
    assert set(trace) == WHOLE
    assert request.parent == ""
    assert request.kind == "SERVER"
    assert {span.parent for span in trace.values()} == {"", request.span_id}
    assert {span.attributes["registry.payment.id"] for span in trace.values()} == {payment["correlationId"]}
    began = [trace[name].start for name in ("POST /payments", "accept payments", "claim payments", "send payments")]
    assert began == sorted(began)
    [sent] = requests_under(traces, trace["send payments"])
    [delivered] = requests_under(traces, trace["send webhooks"])
    assert default.traceparents == [sent.traceparent]
    assert [heard.headers["traceparent"] for heard in hooks.heard] == [delivered.traceparent]
    assert (sent.kind, sent.attributes["http.response.status_code"]) == ("CLIENT", 200)
