"""Traces of refunds, of processors' events and of jobs: each has one of its own."""

from uuid import UUID

from payments.inbound.work import InboundWork
from payments.refunds.work import RefundWork
from registry.tenants.sampling import TracedObject
from tests.bed.receiver import Receiver
from tests.conftest import eventually
from tests.factories import in_thread, make_processor
from tests.payments.inbound import account_of, deliver, event
from tests.payments.refunding import booked
from tests.queueing.test_jobs import run, submit
from tests.settling import opened, settle_due
from tests.tracing import received


async def test_a_refund_has_a_trace_that_links_to_the_payments(api, tenant):
    await in_thread(make_processor, tenant, "sandbox", kind="sandbox")
    [payment] = await booked(tenant)
    async with received() as receiver:
        async with api.post(f"/payments/{payment}/refunds", json={"amount": "3.00"}) as answer:
            assert answer.status == 202
            refund = await answer.json()
        async with opened(RefundWork()) as work:
            await settle_due(work)
        await eventually(lambda: receiver.named("settle refunds"))

    first = TracedObject("refund", tenant.pk, UUID(refund["id"])).first
    [request, *others] = receiver.of(first.shown_id)
    assert request.name == "POST /payments/<id>/refunds"
    assert request.span_id == f"{first.span_id:016x}"
    above = TracedObject("payment", tenant.pk, payment).first
    assert request.links == [(above.shown_id, f"{above.span_id:016x}")]
    assert [one.name for one in others] == ["claim refunds", "send refunds", "settle refunds"]
    [send] = receiver.named("send refunds")
    assert (send.attributes["registry.payment.id"], send.attributes["registry.status"]) == (str(payment), "returned")


async def test_an_event_of_a_processor_has_a_trace_from_its_receipt_to_its_effect(server, tenant):
    account = await account_of(tenant)
    what = event("customer.created")
    async with received() as receiver:
        await deliver(server, account, what)
        async with opened(InboundWork()) as work:
            await settle_due(work)
        await eventually(lambda: receiver.named("settle inbound"))

    spans = receiver.of(TracedObject("inbound_event", tenant.pk, what["id"]).first.shown_id)
    assert [one.name for one in spans] == [
        "POST /webhooks/stripe/<str:account>", "receive events", "claim inbound", "send inbound", "settle inbound",
    ]  # fmt: skip
    assert {one.attributes["registry.inbound_event.id"] for one in spans} == {what["id"]}


async def test_a_job_has_a_trace_and_its_request_carries_it(api, tenant):
    async with received() as receiver, Receiver() as called:
        job = await submit(api, "http", input={"url": called.url})
        await run()
        await eventually(lambda: receiver.named("settle jobs"))

    spans = receiver.of(TracedObject("job", tenant.pk, UUID(job["id"])).first.shown_id)
    assert [one.name for one in spans] == [
        "POST /jobs",
        "accept jobs",
        "claim jobs",
        "send jobs",
        "POST",
        "settle jobs",
    ]
    assert [heard.headers["traceparent"] for heard in called.heard] == [spans[4].traceparent]
    assert spans[4].parent == spans[3].span_id
    assert spans[3].attributes["registry.job.kind"] == "http"
