"""The OpenAPI document: it contains every public route, and no generated request causes a server error."""

import asyncio
import re
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from django.urls import URLPattern, URLResolver, get_resolver
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import checks

import registry.urls  # noqa: F401 - every route describes itself before anybody asks
from payments import urls
from queueing.jobs import urls as jobs
from queueing.outbound import urls as webhooks
from registry.edge.api import api as description
from registry.operators import urls as tenant_pages
from tests.conftest import Api, make_key
from tests.depth import deep

checks.load_all_checks()
KEPT = ["not_a_server_error", "status_code_conformance", "content_type_conformance"]

# Pages and what serves them: for people, not for programs.
PAGES = (
    "admin",
    "login",
    "logout",
    "static/",
    "demo",
    "docs",
    "payments/{}/live",
    "queues",
    "partitions",
    "dead-letters",
)


def test_every_public_route_is_described():
    described = {re.sub(r"\{\w+\}", "{}", path).strip("/") for path in description.get_openapi_schema()["paths"]}

    missing = {route for route in routes() if not route.startswith(PAGES) and route not in described}

    assert missing - page_routes() == set()


def routes(patterns: list[Any] | None = None, prefix: str = "") -> set[str]:
    found: set[str] = set()
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        route = prefix + str(pattern.pattern).strip("^")
        if isinstance(pattern, URLResolver):
            found |= routes(pattern.url_patterns, route)
        elif isinstance(pattern, URLPattern):
            parts = ("{}" if part.startswith("<") else part for part in route.strip("/").split("/"))
            found.add("/".join(parts))
    return found


def page_routes() -> set[str]:
    pages = (urls.pages, webhooks.urlpatterns, jobs.pages, tenant_pages.urlpatterns)
    return set().union(*map(routes, pages))


def test_operations_are_named_once():
    paths = description.get_openapi_schema()["paths"]
    names = [
        operation["operationId"] for path in paths.values() for operation in path.values() if "operationId" in operation
    ]

    assert len(names) == len(set(names)) >= 8


async def test_the_description_is_served_as_openapi_3_1(api: Api):
    async with api.get("/openapi.json") as response:
        said = await response.json()

    assert said["openapi"].startswith("3.1")
    assert said["components"]["securitySchemes"]["key"] == {"type": "http", "scheme": "bearer"}


@pytest.mark.parametrize("mode", [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE])
async def test_no_generated_call_causes_a_server_error(server: str, tenant, default, mode):
    await asyncio.to_thread(call_all, Api(server, await make_key(tenant, "admin")), mode)


def call_all(api: Api, mode: schemathesis.GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{api.address}/openapi.json")
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path in ("/health", "/health/ready"):
            continue  # 503 is what they say of a bed without workers

        @settings(
            max_examples=deep(1, 50),
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def call(case: schemathesis.Case) -> None:
            if "/pop" in case.path and case.query:
                case.query.pop("wait", None)  # nobody will push what it would wait for, for up to a minute
            response = case.call(headers={"Authorization": f"Bearer {api.key}"}, timeout=20)
            case.validate_response(
                response,
                checks=checks.CHECKS.get_by_names(KEPT),
            )

        with suppress(Unsatisfiable):  # nothing can be wrong about a call without parameters and body
            call()
