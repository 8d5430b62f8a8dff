"""Actions on a payment's page: who may take them, what is offered now, and a reason for each in the audit trail."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from payments.models import DeadLetter, Payment
from payments.states import FAILED, QUEUED, SUCCEEDED, UNCERTAIN
from registry.models import AuditEntry
from tests.conftest import Api
from tests.factories import in_thread, make_dead_letter, make_payment, make_person, make_processor
from tests.queueing.test_console import As, visiting  # noqa: F401 - a fixture
from tests.settling import settle_due

WHY = "the payer called"


async def member(tenant, role: str = "operator") -> Any:
    return await in_thread(lambda: make_person(tenant=tenant, role=role))


def act(payment: Any, tenant) -> str:
    correlation_id = payment["correlationId"] if isinstance(payment, dict) else payment.correlation_id
    return f"/payments/{correlation_id}/act?tenant={tenant.slug}"


async def scheduled(api: Api) -> dict[str, Any]:
    return await api.pay(scheduledFor=(datetime.now(UTC) + timedelta(days=1)).isoformat())


def given_up(tenant, status=FAILED) -> Payment:
    payment = make_payment(tenant, status=status, processor=make_processor(tenant), code="http_401", attempt=3)
    if status == UNCERTAIN:
        Payment.objects.filter(pk=payment.pk).update(run_at="9999-12-31T00:00Z")
    make_dead_letter(payment)
    return payment


@pytest.mark.parametrize("role", ["viewer", None])
async def test_who_may_not_act_gets_404_and_changes_nothing(api: Api, visiting: As, tenant, role):  # noqa: F811
    payment = await scheduled(api)
    person = await member(tenant, role) if role else None
    async with visiting(person) as visit:
        asked, _ = await visit.get(act(payment, tenant), do="cancel")
        posted, _ = await visit.post(act(payment, tenant), do="cancel", seen=1, reason=WHY)

    assert (asked, posted) == (404, 404)
    assert (await api.status(payment["correlationId"]))["status"] == "queued"


@pytest.mark.parametrize("verb", ["", "delete", "refund_page"])
async def test_an_unknown_action_is_404(api: Api, visiting: As, tenant, verb: str):  # noqa: F811
    payment = await scheduled(api)
    async with visiting(await member(tenant)) as visit:
        status, _ = await visit.get(act(payment, tenant), do=verb)

    assert status == 404


async def test_another_tenants_payment_is_404(api: Api, visiting: As, tenant, stranger: Api):  # noqa: F811
    payment = await scheduled(stranger)
    async with visiting(await member(tenant)) as visit:
        status, _ = await visit.get(act(payment, tenant), do="cancel")

    assert status == 404


async def test_an_action_wants_a_reason_which_the_audit_trail_keeps(api: Api, visiting: As, tenant):  # noqa: F811
    payment = await scheduled(api)
    async with visiting(await member(tenant)) as visit:
        refused, page = await visit.post(act(payment, tenant), do="cancel", seen=1, reason=" ")
        done, back = await visit.post(act(payment, tenant), do="cancel", seen=1, reason=WHY)

    assert (refused, done) == (422, 302)
    assert "Say why" in page and back == f"/payments/{payment['correlationId']}/live?tenant={tenant.slug}"
    assert (await api.status(payment["correlationId"]))["status"] == "canceled"
    entry = await in_thread(AuditEntry.objects.get, action="payment.cancel")
    assert (entry.reason, entry.target, entry.tenant_id) == (WHY, f"payment {payment['correlationId']}", tenant.pk)


@pytest.mark.parametrize(
    "verb", ["replay", "close", "capture", "cancel", "look_again", "retry_refund", "recheck", "book"]
)
async def test_what_no_banner_offers_is_not_done(api: Api, visiting: As, tenant, verb: str):  # noqa: F811
    await in_thread(make_processor, tenant, "default", options={"delay": 0})
    payment = await api.pay()
    await settle_due()
    before = await api.detail(payment["correlationId"])
    async with visiting(await member(tenant)) as visit:
        status, _ = await visit.post(act(payment, tenant), do=verb, seen=1, reason=WHY)
        _, page = await visit.get(f"/payments/{payment['correlationId']}/live", tenant=tenant.slug)

    assert (status, before["status"]) == (302, SUCCEEDED)
    assert "Nothing was changed." in page
    assert await api.detail(payment["correlationId"]) == before
    assert not await in_thread(AuditEntry.objects.filter(reason=WHY).exists)


async def test_a_payment_that_a_worker_claimed_meanwhile_is_not_canceled(api: Api, visiting: As, tenant, monkeypatch):  # noqa: F811
    payment = await scheduled(api)
    async with visiting(await member(tenant)) as visit:
        await visit.get(act(payment, tenant), do="cancel")
        claimed = Payment.objects.filter(correlation_id=payment["correlationId"])
        await in_thread(claimed.update, status="processing")
        status, _ = await visit.post(act(payment, tenant), do="cancel", seen=1, reason=WHY)

    assert status == 302
    assert (await api.status(payment["correlationId"]))["status"] == "processing"
    assert not await in_thread(AuditEntry.objects.filter(reason=WHY).exists)


async def test_a_dead_letter_is_replayed_and_then_there_is_nothing_left_to_replay(visiting: As, tenant):  # noqa: F811
    payment = await in_thread(given_up, tenant)
    async with visiting(await member(tenant)) as visit:
        await visit.post(act(payment, tenant), do="replay", seen=1, reason=WHY)
        again, _ = await visit.post(act(payment, tenant), do="replay", seen=1, reason=WHY)

    stored = await in_thread(Payment.objects.get, pk=payment.pk)
    assert (stored.status, again) == (QUEUED, 302)
    assert await in_thread(AuditEntry.objects.filter(action="deadletter.replay", reason=WHY).count) == 1


async def test_closing_one_in_doubt_leaves_the_payment_and_says_what_that_means(visiting: As, tenant):  # noqa: F811
    payment = await in_thread(given_up, tenant, UNCERTAIN)
    async with visiting(await member(tenant)) as visit:
        _, asked = await visit.get(act(payment, tenant), do="close")
        await visit.post(act(payment, tenant), do="close", seen=1, reason=WHY)

    letter = await in_thread(DeadLetter.objects.get, payment_id=payment.pk)
    assert "the payer stays charged R$19.90" in asked and "Nothing is refunded by this." in asked
    assert (letter.resolution, (await in_thread(Payment.objects.get, pk=payment.pk)).status) == ("closed", UNCERTAIN)
