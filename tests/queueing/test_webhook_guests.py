"""Guests of the open tenant see no webhooks; secrets that cannot be decrypted are reported."""

from typing import Any
from uuid import uuid4

import pytest

from queueing.models import WebhookDelivery, WebhookEndpoint
from registry.models import Tenant
from tests.conftest import Api
from tests.factories import in_thread, make_payment, make_person, make_tenant
from tests.queueing.hooks import deliveries, endpoint, fan_out
from tests.queueing.test_console import As, visiting  # noqa: F401 - a fixture


@pytest.fixture
async def tenant(settings: Any) -> Tenant:
    """The open one."""
    tenant = await in_thread(make_tenant, f"open-{uuid4().hex[:12]}", open=True)
    settings.REGISTRY_OPEN_TENANT = tenant.slug
    return tenant


@pytest.fixture
async def hook(tenant: Tenant) -> WebhookEndpoint:
    return await endpoint(tenant, "http://127.0.0.1:9999/hook")


@pytest.fixture
async def delivery(tenant: Tenant, hook: WebhookEndpoint) -> WebhookDelivery:
    await in_thread(make_payment, tenant)
    await fan_out()
    return (await deliveries(hook))[0]


async def test_without_a_key_payments_are_read_and_webhooks_are_not(server, hook, delivery):
    paths = [
        "/webhook-endpoints", f"/webhook-endpoints/{hook.uuid}", f"/webhook-endpoints/{hook.uuid}/deliveries",
        f"/webhook-deliveries/{delivery.pk}",
    ]  # fmt: skip
    found = []
    async with Api(server) as nobody:
        for path in ("/payments", *paths):
            async with nobody.get(path) as response:
                found.append(response.status)

    assert found == [200, 401, 401, 401, 401]


async def test_a_guest_sees_none_of_the_pages(visiting: As, hook, delivery):  # noqa: F811
    async with visiting() as visit:
        pages = ("/webhooks", f"/webhooks/{hook.uuid}", f"/webhooks/deliveries/{delivery.pk}")
        found = [await visit.get(page) for page in pages]

    assert [code for code, _ in found] == [302, 404, 404]


async def test_members_see_the_pages_in_production_too(visiting: As, tenant, hook, settings):  # noqa: F811
    settings.PRODUCTION = True
    person = await in_thread(make_person, tenant=tenant, role="viewer")

    async with visiting(person) as visit:
        code, page = await visit.get(f"/webhooks/{hook.uuid}")

    assert (code, "1 secret<" in page) == (200, True)


async def test_the_command_that_is_shown_has_a_key(visiting: As, tenant):  # noqa: F811
    async with visiting(await in_thread(make_person, tenant=tenant, role="viewer")) as visit:
        _, page = await visit.get("/webhooks")

    assert "Bearer YOUR_KEY" in page


async def test_a_secret_that_cannot_be_decrypted_is_reported_on_the_page_and_is_no_error(visiting: As, tenant, hook):  # noqa: F811
    await in_thread(WebhookEndpoint.objects.filter(pk=hook.pk).update, secrets=b"sealed with another key altogether")
    person = await in_thread(make_person, tenant=tenant, role="owner")

    async with visiting(person) as visit:
        shown = await visit.get(f"/webhooks/{hook.uuid}")
        tried = await visit.post(f"/webhooks/kit?tenant={tenant.slug}", endpoint=str(hook.uuid), url="", secret="")

    assert [code for code, _ in (shown, tried)] == [200, 422]
    assert all("name that one in SECRET_KEY_FALLBACKS" in page for _, page in (shown, tried))
