"""Navigation of the console: who sees which entries, and which one is the current page's."""

import aiohttp
import pytest
from django.urls import Resolver404, resolve

import registry.urls  # noqa: F401 - the entries are registered with the routes
from registry.edge.navigation import current_entry, groups_for
from registry.edge.viewer import Visitor
from registry.models import Tenant
from tests.factories import in_thread, make_person
from tests.queueing.test_console import session_of


def labels(role: str) -> list[str]:
    visitor = Visitor(tenant=Tenant(slug="shop"), role=role)
    return [entry.label for _, entries in groups_for(visitor, "/") for entry in entries]


def test_a_guest_sees_payments_and_documentation_only():
    assert labels("") == ["Home", "Payments", "API"]


def test_an_owner_sees_every_entry():
    assert {"Home", "Payments", "Queues", "Jobs", "Webhooks", "API", "Plan"} <= set(labels("owner"))


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/", "Home"),
        ("/payments/list", "Payments"),
        ("/payments/8b0a1c1e-0000-4000-8000-000000000000/live", "Payments"),
        ("/queues", "Queues"),
        ("/dead-letters/orders/new", "Queues"),
        ("/workers", "Jobs"),
        ("/webhooks/kit", "Webhooks"),
    ],
)
def test_a_page_belongs_to_the_entry_with_the_longest_beginning_in_common(path: str, label: str):
    found = current_entry(path)
    assert found is not None
    assert found.label == label


def test_an_address_that_begins_like_an_entry_belongs_to_it_only_after_a_slash():
    assert current_entry("/queueship") is None


def test_every_entry_leads_to_a_page():
    visitor = Visitor(tenant=Tenant(slug="shop"), role="owner")
    for _, entries in groups_for(visitor, "/"):
        for entry in entries:
            try:
                resolve(entry.address.partition("?")[0])
            except Resolver404:
                pytest.fail(f"{entry.label} leads nowhere")


@pytest.mark.parametrize("address", ["/nothing-here", "/jobs/schedules/none-of-this-name", "/queues?tenant=of-others"])
async def test_a_page_that_does_not_exist_keeps_the_navigation(server: str, tenant: Tenant, address: str):
    """Where no route matches, where a page finds nothing, and at a tenant of others."""
    cookies = {"sessionid": await in_thread(lambda: session_of(make_person(tenant=tenant)))}
    jar = aiohttp.CookieJar(unsafe=True)  # cookies of a bare address too
    async with (
        aiohttp.ClientSession(server, cookies=cookies, cookie_jar=jar) as session,
        session.get(address, headers={"Accept": "text/html"}) as response,
    ):
        assert response.status == 404
        assert 'aria-label="Main"' in await response.text()
