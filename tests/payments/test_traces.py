"""Traces of payments: from the request to the delivery of the webhook, at a receiver of OTLP."""

import asyncio
import json
import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest

from payments.settle.work import PaymentWork
from payments.states import FAILED, SUCCEEDED
from registry.models import Tenant
from registry.telemetry import export, traces
from registry.tenants import sampling
from registry.tenants.sampling import TracedObject
from tests.bed import HttpProcessor
from tests.bed.receiver import Receiver
from tests.bed.running import PROJECT
from tests.bed.template import service_environment
from tests.bed.traces import ReceivedSpan, TraceReceiver
from tests.conftest import Api, at_work, eventually
from tests.factories import in_thread, make_api_key, make_payment, make_person, make_processor, make_tenant
from tests.queueing.hooks import delivering, endpoint, until
from tests.queueing.test_console import As, visiting  # noqa: F401 - a fixture
from tests.settling import settle_due, settle_one
from tests.tracing import counted, received, tracing

WHOLE = {
    "POST /payments", "accept payments", "claim payments", "send payments", "settle payments",
    "claim webhooks", "send webhooks", "settle webhooks",
}  # fmt: skip
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def by_name(receiver: TraceReceiver, trace_id: str) -> dict[str, ReceivedSpan]:
    """The spans of a trace that are named after what we do; requests to other services are named after their method."""
    return {span.name: span for span in receiver.of(trace_id) if span.name != "POST"}


def requests_under(receiver: TraceReceiver, span: ReceivedSpan) -> list[ReceivedSpan]:
    return [one for one in receiver.of(span.trace_id) if one.name == "POST" and one.parent == span.span_id]


def trace_of(tenant: Tenant, payment: dict[str, Any]) -> str:
    return TracedObject("payment", tenant.pk, UUID(payment["correlationId"])).first.shown_id


# -- One trace ---------------------------------------------------------------------------------------------------------


async def test_one_trace_leads_from_the_request_to_the_delivery(api, tenant, default):
    async with received() as receiver, Receiver() as hooks:
        hook = await endpoint(tenant, hooks.url, "payment.succeeded")

        payment = await api.pay()
        async with at_work(), delivering():
            await api.until(payment["correlationId"], "succeeded")
            await until(hook, "delivered")
        await eventually(lambda: receiver.named("settle webhooks"))

    [request] = receiver.named("POST /payments")
    trace = by_name(receiver, request.trace_id)
    assert request.trace_id == trace_of(tenant, payment)
    assert set(trace) == WHOLE
    assert (request.parent, request.kind) == ("", "SERVER")
    assert {span.parent for span in trace.values()} == {"", request.span_id}
    assert {span.attributes["registry.payment.id"] for span in trace.values()} == {payment["correlationId"]}
    began = [trace[name].start for name in ("POST /payments", "accept payments", "claim payments", "send payments")]
    assert began == sorted(began)
    [sent] = requests_under(receiver, trace["send payments"])
    [delivered] = requests_under(receiver, trace["send webhooks"])
    assert default.traceparents == [sent.traceparent]
    assert [heard.headers["traceparent"] for heard in hooks.heard] == [delivered.traceparent]
    assert (sent.kind, sent.attributes["http.response.status_code"]) == ("CLIENT", 200)


async def test_names_and_attributes_are_those_of_opentelemetrys_conventions(api, tenant, default):
    async with received() as receiver:
        await settle_one(api, await api.pay())
        await eventually(lambda: receiver.named("settle payments"))

    [request], [send] = receiver.named("POST /payments"), receiver.named("send payments")
    assert request.attributes | {"registry.request.id": ""} == {
        "registry.tenant.id": tenant.pk, "registry.payment.id": request.attributes["registry.payment.id"],
        "registry.tenant.slug": tenant.slug, "registry.request.id": "", "http.request.method": "POST", "http.route": "/payments",
        "http.response.status_code": 202, "url.scheme": "http",
    }  # fmt: skip
    assert send.attributes == {
        "registry.tenant.id": tenant.pk, "registry.payment.id": request.attributes["registry.payment.id"],
        "messaging.system": "registry", "messaging.destination.name": "payments", "messaging.operation.name": "send",
        "messaging.operation.type": "process", "messaging.batch.message_count": 1, "registry.processor": "default",
        "registry.processor.kind": "http", "registry.attempt": 1, "registry.attempt.outcome": "booked",
        "registry.status": "succeeded",
    }  # fmt: skip
    assert request.resource["service.name"] == "registry"


async def test_payments_that_share_a_commit_link_to_each_other(api, tenant, default):
    async with received() as receiver:
        items = [{"correlationId": str(uuid4()), "amount": "1.00"} for _ in range(3)]
        async with api.post("/payments/batch", json={"items": items}) as answer:
            assert answer.status in (200, 202), await answer.text()
        await settle_due()
        await eventually(lambda: len(receiver.named("settle payments")) == 3)

    for name in ("POST /payments/batch", "accept payments", "claim payments", "settle payments"):
        first, *others = sorted(receiver.named(name), key=lambda span: -len(span.links))
        assert len(others) == 2, name
        assert set(first.links) == {(one.trace_id, one.span_id) for one in others}
        assert {tuple(one.links) for one in others} == {((first.trace_id, first.span_id),)}
        assert len({(one.start // 1_000_000, one.end // 1_000_000) for one in (first, *others)}) <= 2


async def test_a_replayed_request_is_a_span_of_the_same_trace(api, tenant):
    async with received() as receiver:
        payment = await api.pay()
        await api.pay(correlationId=payment["correlationId"])
        await eventually(lambda: len(receiver.named("POST /payments")) == 2)

    first, again = sorted(receiver.named("POST /payments"), key=lambda span: span.parent)
    assert (first.parent, again.parent) == ("", first.span_id)
    assert again.trace_id == first.trace_id


async def test_a_request_that_was_sent_before_the_answer_to_another_is_not_in_the_others_trace(
    server, api, key, tenant
):
    """A proxy may send requests of two tenants in one go."""
    address, body = urlsplit(server), json.dumps({"correlationId": str(uuid4()), "amount": "1.00"})
    head = f"HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {key}\r\n"
    pay = f"POST /payments {head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ask = f"GET /payments {head}Connection: close\r\n\r\n"
    async with received() as receiver:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write((pay + ask).encode())
        answers = await asyncio.wait_for(reader.read(), timeout=30)
        writer.close()
        await api.pay()
        await eventually(lambda: len(receiver.named("POST /payments")) == 2)

    assert (answers.count(b"HTTP/1.1 202"), answers.count(b"HTTP/1.1 200")) == (1, 1)
    assert {span.name for span in receiver.spans} == {"POST /payments", "accept payments"}


async def test_rates_are_read_again_after_any_error(api, tenant, monkeypatch, caplog):
    real, failures = sampling._read, [RuntimeError("no such column")]

    async def read() -> None:
        if failures:
            raise failures.pop()
        await real()

    monkeypatch.setattr(sampling, "_read", read)
    monkeypatch.setattr(sampling, "READ_EVERY", 0.05)
    async with received() as receiver:
        await api.pay()
        await eventually(lambda: receiver.named("POST /payments"))

    assert any("rates of tenants' traces" in record.message for record in caplog.records)


async def test_the_span_of_a_caller_is_linked_and_decides_nothing(api, tenant):
    async with received() as receiver:
        body = {"correlationId": str(uuid4()), "amount": "1.00"}
        async with api.post("/payments", json=body, headers={"traceparent": CALLER}) as answer:
            assert answer.status == 202
        await eventually(lambda: receiver.named("POST /payments"))
    async with received(rate=0.0) as other:
        body = {"correlationId": str(uuid4()), "amount": "1.00"}
        async with api.post("/payments", json=body, headers={"traceparent": CALLER}) as answer:
            assert answer.status == 202

    [request] = receiver.named("POST /payments")
    assert request.links == [("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")]
    assert request.trace_id == trace_of(tenant, {"correlationId": request.attributes["registry.payment.id"]})
    assert other.spans == []


@pytest.mark.parametrize(
    "header", [b"", b"00-0-0-01", b"ff-" + CALLER[3:].encode(), b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01", b"\xff"]
)
def test_a_traceparent_that_names_no_span_is_ignored(header: bytes):
    assert traces.link_of(header) == []


async def test_a_failed_attempt_is_a_failed_span_and_the_retry_another_one(api, tenant, default, quick):
    default.fails(times=1)
    async with received() as receiver, at_work():
        payment = await api.pay()
        await api.until(payment["correlationId"], "succeeded")
        await eventually(lambda: len(receiver.named("settle payments")) == 2)

    tries = sorted(receiver.named("send payments"), key=lambda span: span.start)
    assert [(one.failed, one.attributes["registry.attempt.outcome"]) for one in tries] == [
        (True, "not_booked"),
        (False, "booked"),
    ]
    assert tries[0].attributes["error.type"] == "http_500"
    assert [one.failed for one in receiver.named("POST")] == [True, False]


# -- What is sampled -----------------------------------------------------------------------------------------------


async def test_the_rate_of_a_tenant_stands_above_that_of_the_service(server, api, tenant, default):
    chosen = await in_thread(make_tenant, trace_rate=1.0)
    async with HttpProcessor() as theirs, received(rate=0.0) as receiver:
        await in_thread(make_processor, chosen, "default", kind="http", url=theirs.url)
        async with Api(server, await in_thread(make_api_key, chosen)) as other:
            await api.pay()
            payment = await other.pay()
            await settle_due()
        await eventually(lambda: receiver.named("settle payments"))

    assert {span.trace_id for span in receiver.spans} == {trace_of(chosen, payment)}
    assert default.traceparents == [""]
    assert [one[:36] for one in theirs.traceparents] == [f"00-{trace_of(chosen, payment)}-"]


async def test_a_changed_rate_is_read_while_the_process_runs(api, tenant, monkeypatch):
    monkeypatch.setattr(sampling, "READ_EVERY", 0.01)
    async with received(rate=0.0):
        await in_thread(lambda: Tenant.objects.filter(pk=tenant.pk).update(trace_rate=0.25))
        await eventually(lambda: sampling.rate_of(tenant.pk) == 0.25)


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.5, 1.0])
def test_every_process_samples_the_same_share(rate: float):
    ids = [UUID(int=n) for n in range(4000)]

    taken = [id for id in ids if traces.falls_within(rate, "payment", 7, id)]

    assert taken == [id for id in ids if traces.falls_within(rate, "payment", 7, id)]
    assert len(taken) / len(ids) == pytest.approx(rate, abs=0.03)
    assert {traces.falls_within(1.0, "payment", 8, id) for id in taken} <= {True}


def test_objects_with_the_same_id_have_traces_of_their_own():
    id = UUID(int=1)

    firsts = [traces.first_span(kind, tenant, id) for kind in ("payment", "refund") for tenant in (1, 2)]

    assert len({first.trace_id for first in firsts}) == len({first.span_id for first in firsts}) == 4


async def test_off_there_is_no_header_and_no_span(api, tenant, default):
    await settle_one(api, await api.pay())

    assert default.traceparents == [""]
    assert sampling.loops.peek() is None


def test_off_the_web_process_and_the_worker_never_load_the_sdk(tmp_path):
    program = (
        "import sys, registry.asgi, queueing.work.entry, queueing.work.worker; "
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk.trace', 'opentelemetry.exporter', 'google.protobuf'))])"
    )
    environ = {**service_environment(tmp_path), "DATABASE_URL": "postgres://x@127.0.0.1:1/x", "REDIS_URL": "redis://127.0.0.1:1",
               "REGISTRY_ID": "none", "DJANGO_SETTINGS_MODULE": "registry.settings"}  # fmt: skip

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, env=environ, capture_output=True, text=True, timeout=60
    )

    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


# -- A receiver in trouble -----------------------------------------------------------------------------------------


async def test_while_no_receiver_listens_payments_are_settled_and_lost_spans_counted(api, default, caplog):
    async with TraceReceiver() as receiver:
        nobody = receiver.url
    before = counted("refused")
    async with tracing(nobody):
        await settle_one(api, await api.pay())
        await eventually(lambda: counted("refused") - before >= 5)

    assert len([record for record in caplog.records if "does not accept spans" in record.message]) == 1


@pytest.mark.parametrize("status", [400, 503])
async def test_spans_that_a_receiver_refuses_are_counted(api, monkeypatch, status: int):
    monkeypatch.setattr(export, "EXPORT_LIMIT", 0.2)
    before = counted("refused")
    async with received() as receiver:
        receiver.status = status
        await api.pay()
        await eventually(lambda: counted("refused") > before)


async def test_a_silent_receiver_holds_up_the_end_of_a_process_for_a_named_time_only(api, monkeypatch):
    monkeypatch.setattr(export, "CLOSE_LIMIT", 0.2)
    before = counted("lost at the end")
    loop = asyncio.get_running_loop()
    async with TraceReceiver() as receiver:
        receiver.silent = True
        async with tracing(receiver.url):
            await api.pay()
            await eventually(lambda: receiver.headers)
            started = loop.time()
        took = loop.time() - started

    assert took < 0.2 + 1.0
    assert counted("lost at the end") > before


async def test_what_does_not_fit_into_the_queue_is_dropped_and_counted(api, monkeypatch):
    monkeypatch.setattr(export, "CLOSE_LIMIT", 0.1)
    monkeypatch.setattr(export, "QUEUE", 3)
    before = counted("queue full")
    async with TraceReceiver() as receiver:
        receiver.silent = True
        async with tracing(receiver.url):
            for _ in range(3):
                await api.pay()
            await eventually(lambda: counted("queue full") - before == 3)


async def test_an_error_in_a_description_is_logged_and_the_payment_settled(api, default, monkeypatch, caplog):
    def broken(*_: object) -> dict[str, str]:
        raise RuntimeError("no description")

    monkeypatch.setattr(PaymentWork, "described", broken)
    async with received() as receiver:
        await settle_one(api, await api.pay())
        await eventually(lambda: receiver.named("settle payments"))

    assert receiver.named("send payments") == []
    assert any("spans were not recorded" in record.message for record in caplog.records)


async def test_a_receiver_gets_the_headers_of_the_settings(api, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=of-the-receiver")
    async with received() as receiver:
        await api.pay()
        await eventually(lambda: receiver.spans)

    assert receiver.headers[0] == {"content-type": "application/x-protobuf", "x-key": "of-the-receiver"}


# -- What is never in it -------------------------------------------------------------------------------------------


async def test_no_span_has_a_secret_or_anything_of_a_payer(api, key, tenant, default):
    async with received() as receiver, Receiver() as hooks:
        hook = await endpoint(tenant, f"{hooks.url}/path-with-hidden-token", "payment.succeeded")
        payment = await api.pay(
            description="hidden-description",
            metadata={"note": "hidden-metadata"},
            returnUrl="https://shop.example/hidden-return",
        )
        async with at_work(), delivering():
            await api.until(payment["correlationId"], "succeeded")
            await until(hook, "delivered")
        await eventually(lambda: receiver.named("settle webhooks"))

    sent = b"".join(receiver.bodies)
    secrets = [
        key,
        key.rpartition("_")[2],
        hook.secret,
        "hidden",
        "19.90",
        "1990",
        payment["liveUrl"].partition("token=")[2],
    ]
    assert payment["correlationId"].encode() in sent
    assert [secret for secret in secrets if secret.encode() in sent] == []


# -- On the page ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "rate", "shown"),
    [(SUCCEEDED, 1.0, True), (FAILED, 1e-12, True), (SUCCEEDED, 1e-12, False), (FAILED, 0.0, False)],
)
async def test_the_payments_page_links_to_a_trace_that_exists(tenant, visiting: As, settings, status, rate, shown):  # noqa: F811
    settings.TRACE_VIEWER_URL = "https://viewer.example/trace/{trace_id}"
    payment = await in_thread(lambda: make_payment(tenant, status=status, processor=make_processor(tenant)))
    link = f"https://viewer.example/trace/{TracedObject('payment', tenant.pk, payment.correlation_id).first.shown_id}"
    address = f"/payments/{payment.correlation_id}/live?tenant={tenant.slug}"

    async with received(rate=rate):
        async with visiting(await in_thread(make_person)) as visit:
            _, page = await visit.get(address)
        async with visiting(await in_thread(lambda: make_person(tenant=tenant))) as visit:
            _, members = await visit.get(address)

    assert (link in page) is shown
    assert "viewer.example" not in members
