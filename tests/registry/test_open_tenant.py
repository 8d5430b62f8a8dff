"""Requests without a key: `/payments*` and their pages act as the open tenant, public routes answer, all others refuse."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from django.urls import URLResolver, get_resolver

import registry.urls  # noqa: F401 - every route is there before anybody walks them
from payments.api.socket_urls import websocket_urlpatterns
from queueing.broker import push
from registry.edge.api import api as description
from registry.models import Tenant
from tests.conftest import Api
from tests.factories import in_thread, make_tenant

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

# Contract sections 1, 2 and 7: these act as the open tenant.
AS_THE_OPEN_TENANT = {
    "payments", "payments/batch", "payments/{}", "payments/{}/status", "payments/{}/events", "payments/{}/refunds",
    "payments/{}/refunds/{}", "payments/{}/cancel", "payments/{}/capture", "payments-summary", "purge-payments",
    "", "overview", "payments/{}/live", "payments/{}/look", "payments/{}/refund",
    "processors/{}/behaviour", "test-payment", "payments/list", "payments/list/rows", "payments/{}/act",
}  # fmt: skip
# Nobody's: they show no tenant, or have a proof of their own (a signature, a token, a password).
PUBLIC = {
    "health", "health/live", "health/ready", "metrics", "metrics/prometheus", "openapi.json", "docs", "static/{}",
    "login", "logout", "invitation/{}", "signup", "signup/{}/details", "signup/{}/users", "signup/{}/plan",
    "signup/{}/payment", "signup/{}/paid", "signup/{}/live", "webhooks/stripe/{}", "webhooks/billing", "jobs/{}/file",
    "password", "password/{}/{}",
}  # fmt: skip
PAGES_FOR_MEMBERS = (
    "queues", "partitions", "dead-letters", "webhooks", "webhooks/kit", "webhooks/callbacks", "webhooks/{}", "webhooks/deliveries/{}", "plan",
    "plan/paid", "balance", "jobs/list", "jobs/schedules", "jobs/schedules/{}", "jobs/{}/live", "jobs/{}/live/events", "workers",
    "developers", "developers/requests", "developers/requests/{}", "team", "settings", "audit",
    "processors", "processors/{}", "routing", "refunds/list", "disputes/list", "discrepancies/list", "refunds/{}/act", "discrepancies/{}/act", "payments/list/export",
)  # fmt: skip


def routes(patterns: list[Any] | None = None, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every route of the URL conf, with `{}` for its variables, and an address that it takes."""
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        route = prefix + str(pattern.pattern).strip("^$")
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, route)
        elif not route.startswith("admin/"):
            yield re.sub(r"<[^>]*>", "{}", route).strip("/"), re.sub(r"<(?:(\w+):)?\w+>", _example, route)


def _example(variable: re.Match[str]) -> str:
    return {"uuid": str(uuid4()), "int": "1"}.get(variable[1] or "str", "thing")


@pytest.fixture
async def open_tenant(settings: Any) -> Tenant:
    tenant = await in_thread(make_tenant, f"open-{uuid4().hex[:12]}", open=True)
    settings.REGISTRY_OPEN_TENANT = tenant.slug
    return tenant


@pytest.fixture
async def nobody(server: str, open_tenant: Tenant):
    """A program without a key. It sends the token that forms carry, so that CSRF is not what refuses it."""
    async with Api(server) as api:
        api.session.headers.update({"Cookie": f"csrftoken={'c' * 32}", "X-CSRFToken": "c" * 32})
        yield api


async def said(api: Api, method: str, path: str, **options: Any) -> tuple[int, str]:
    """Status, and where a redirect leads."""
    async with api.session.request(method, f"/{path}", allow_redirects=False, **options) as response:
        return response.status, response.headers.get("Location", "").partition("?")[0]


def refused(answer: tuple[int, str], route: str) -> bool:
    """401 at an API; at a page the login, or as if there were none."""
    if answer[0] == 405:
        return True
    if route.startswith("admin") or route in PAGES_FOR_MEMBERS or route.partition("/")[0] in PAGES_FOR_MEMBERS[:3]:
        return answer[0] == 404 or answer in ((302, "/login"), (302, "/admin/login/"))
    return answer[0] == 401


async def test_every_route_is_refused_without_a_key_but_those_that_are_listed(nobody: Api):
    body = {"data": b"{}", "headers": {"Content-Type": "application/json"}}
    found = {
        (method, path): (route, await said(nobody, method, path, **({} if method in ("GET", "HEAD") else body)))
        for route, path in routes()
        if route not in AS_THE_OPEN_TENANT | PUBLIC
        for method in METHODS
    }

    assert len(found) > 300
    assert {key: answer for key, (route, answer) in found.items() if not refused(answer, route)} == {}


def test_the_description_names_the_operations_without_a_key():
    described = {
        (re.sub(r"\{\w+\}", "{}", path).strip("/"), tuple(map(tuple, operation.get("security", [{"key": []}]))))
        for path, methods in description.get_openapi_schema()["paths"].items()
        for operation in methods.values()
    }

    assert {path for path, security in described if security == (("key",), ())} <= AS_THE_OPEN_TENANT
    assert {path for path, security in described if security == (("key",),)} & (AS_THE_OPEN_TENANT | PUBLIC) == set()


async def test_routes_listed_as_public_exist_and_require_no_key(nobody: Api):
    known = dict(routes())
    bodies = {"data": b"{}", "headers": {"Content-Type": "application/json"}}

    assert (AS_THE_OPEN_TENANT | PUBLIC) - set(known) == set()
    for route in AS_THE_OPEN_TENANT - {"payments/{}/refund"}:  # guests move no money; only its people see that page
        answers = {await said(nobody, method, known[route], **bodies) for method in ("GET", "POST")}
        assert not {status for status, _ in answers} & {401, 500}, route
        assert (302, "/login") not in answers, route


@pytest.mark.parametrize(
    "path", ["api/v1/push/", "api/v1//push", "API/v1/push", "api/v1/status/queues/a/b/", "queues/"]
)
async def test_another_spelling_of_an_address_gives_no_access(nobody: Api, path: str):
    for method in METHODS:
        assert (await said(nobody, method, path))[0] in (401, 404, 405)


async def test_without_a_key_nothing_is_pushed_popped_or_waited_for(nobody: Api, monkeypatch):
    """Neither is the body read first: nobody unknown may make the service hold a large one."""
    monkeypatch.setattr(push, "push", None)

    async def endless():
        yield b'{"items":[' + b" " * 70_000
        raise AssertionError("the body was read to its end")

    large = {"data": endless(), "headers": {"Content-Type": "application/json", "Content-Length": "1000000"}}
    try:
        status = (await said(nobody, "POST", "api/v1/push", **large))[0]
    except (aiohttp.ClientError, AssertionError):
        status = 401  # it hung up
    parked = await said(nobody, "GET", "api/v1/pop/queue/orders?wait=true&timeout=30000")

    assert (status, parked[0]) == (401, 401)


async def test_the_sockets_without_a_key_are_those_of_payments(nobody: Api):
    assert {str(pattern.pattern) for pattern in websocket_urlpatterns} == {
        "ws/payments",
        "ws/payments/<uuid:correlation_id>",
    }
    async with nobody.ws_connect(f"/ws/payments/{uuid4()}") as socket:
        await socket.receive(timeout=5)
        assert socket.close_code in (4401, 4404)


async def test_a_guest_of_a_sandbox_sees_payments_and_no_links_to_other_pages(nobody: Api, open_tenant: Tenant):
    async with nobody.get("/") as response:
        page = await response.text()

    assert response.status == 200
    assert open_tenant.name in page
    assert [path for path in ("/queues", "/webhooks", "/plan") if f'href="{path}' in page] == []


async def test_metrics_of_a_tenants_queues_require_its_key(nobody: Api):
    async with nobody.get("/metrics/prometheus") as response:
        text = await response.text()

    assert response.status == 200
    assert "queen_queue_" not in text
