"""Webhooks in the admin: visible to members of the tenant, changed and replayed with a reason."""

import pytest
from django.test import Client
from django.urls import reverse

from queueing.models import WebhookDelivery, WebhookEndpoint
from registry.models import AuditEntry
from tests.factories import in_thread, make_payment, make_person, make_tenant
from tests.queueing.hooks import again, deliveries, endpoint, fan_out

WHY = "asked by the shop"


def post(person, model, action: str, pk: int, **more: str):
    client = Client()
    client.force_login(person)
    url = reverse(f"admin:queueing_{model._meta.model_name}_changelist")
    data = {"action": action, "_selected_action": [str(pk)], **more}
    return client.post(url, data, follow=True).content.decode()


def get(person, name: str, *args, **query: str) -> tuple[int, str]:
    client = Client()
    client.force_login(person)
    response = client.get(reverse(f"admin:{name}", args=args), query)
    return response.status_code, response.content.decode().replace("<wbr>", "")


@pytest.fixture
async def hook(tenant):
    return await endpoint(tenant, "http://127.0.0.1:9999/hook", description="The back office")


@pytest.fixture
async def operator(tenant):
    return await in_thread(make_person, tenant=tenant)


async def test_an_operator_disables_and_enables_an_endpoint_with_a_reason(hook, operator, tenant):
    asking = await in_thread(post, operator, WebhookEndpoint, "endpoint_disable", hook.pk)
    await in_thread(post, operator, WebhookEndpoint, "endpoint_disable", hook.pk, seen="1", reason=WHY)
    off = await again(hook)
    await in_thread(post, operator, WebhookEndpoint, "endpoint_enable", hook.pk, seen="1", reason=WHY)
    on = await again(hook)

    entries = await in_thread(lambda: list(AuditEntry.objects.order_by("id").values_list("action", "reason")))
    assert "Nothing is sent there any more" in asking
    assert (off.enabled, off.disabled_reason) == (False, "Switched off by an operator of the service.")
    assert (on.enabled, on.disabled_reason) == (True, "")
    assert entries[1:] == [("endpoint.disable", WHY), ("endpoint.enable", WHY)]


async def test_deliveries_that_were_given_up_are_replayed_with_a_reason(hook, operator, tenant):
    await in_thread(make_payment, tenant)
    await fan_out()
    [one] = await deliveries(hook)
    await in_thread(WebhookDelivery.objects.filter(pk=one.pk).update, status="dead", attempt=10)

    await in_thread(post, operator, WebhookDelivery, "delivery_replay", one.pk, seen="1", reason=WHY)

    [now] = await deliveries(hook)
    latest = await in_thread(lambda: AuditEntry.objects.order_by("id").last())
    assert (now.status, now.tries_from) == ("pending", 10)
    assert (latest.action, latest.reason, latest.rows, latest.tenant_id) == ("delivery.replay", WHY, 1, tenant.pk)


async def test_lists_and_pages_show_what_is_there_and_no_secret(hook, operator, tenant):
    await in_thread(make_payment, tenant)
    await fan_out()
    [one] = await deliveries(hook)

    seen = [
        await in_thread(get, operator, "queueing_webhookendpoint_changelist"),
        await in_thread(get, operator, "queueing_webhookendpoint_change", hook.pk),
        await in_thread(get, operator, "queueing_webhookdelivery_changelist"),
        await in_thread(get, operator, "queueing_webhookdelivery_change", one.pk),
    ]

    assert [status for status, _ in seen] == [200] * 4
    assert all("The back office" in text or "127.0.0.1:9999" in text for _, text in seen)
    assert not any(hook.secret in text or "secrets" in text for _, text in seen)


async def test_another_tenants_operator_sees_and_changes_nothing(hook, tenant):
    other = await in_thread(make_tenant)
    stranger = await in_thread(make_person, tenant=other)

    _, listed = await in_thread(get, stranger, "queueing_webhookendpoint_changelist")
    status, _ = await in_thread(get, stranger, "queueing_webhookendpoint_change", hook.pk)
    await in_thread(post, stranger, WebhookEndpoint, "endpoint_disable", hook.pk, seen="1", reason=WHY)

    assert "The back office" not in listed
    assert status == 302
    assert (await again(hook)).enabled
