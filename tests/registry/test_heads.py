"""The Host header on every route: exactly one, well-formed; optional in HTTP/1.0; overridden by an absolute target."""

from uuid import uuid4

import pytest

from registry.edge import heads
from tests.factories import in_thread, make_tenant
from tests.registry.raw_http import all_of, answer_to, status_of

ROUTES = [
    "/",
    "/login",
    "/payments",
    "/api/v1/status",
    "/openapi.json",
    "/health/live",
    "/static/registry/app.css",
    "/no",
]


def request(path: str, *hosts: str, version: str = "1.1", method: str = "GET", more: str = "") -> bytes:
    lines = "".join(f"Host: {host}\r\n" for host in hosts)
    return f"{method} {path} HTTP/{version}\r\n{lines}{more}Accept: text/html\r\nConnection: close\r\n\r\n".encode()


@pytest.mark.parametrize("path", ROUTES)
async def test_a_request_without_a_host_with_two_or_with_a_malformed_one_is_400_on_every_route(server: str, path: str):
    for hosts in ((), ("localhost", "localhost"), ("local host",)):
        answer = await all_of(server, request(path, *hosts))

        assert status_of(answer) == 400, hosts
        assert b"x-request-id" in answer.lower()
        assert b"application/problem+json" in answer.lower()


@pytest.mark.parametrize(
    "host",
    ["", " ", "a b", "a/b", "a@b", "a:b", "a:1:2", "a:123456", "http://a", "[::1", "::1", "[::g]", "a,b", "ä.example", "a?", "a\\"],
)  # fmt: skip
def test_an_invalid_host(host: str):
    assert heads.fault_of({"headers": [(b"host", host.encode("utf-8"))], "http_version": "1.1"}) is not None


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "a.b-c.example", "10.0.0.1:80", "[::1]:8000", "my_app", "a:"]
)
def test_a_valid_host(host: str):
    assert heads.fault_of({"headers": [(b"host", host.encode())], "http_version": "1.1"}) is None


def test_more_than_two_hundred_header_fields_are_431():
    headers = [(b"host", b"localhost"), *[(b"a", b"b")] * 199]

    assert heads.fault_of({"headers": headers}) is None
    assert heads.fault_of({"headers": [*headers, (b"a", b"b")]}).status == 431


async def test_http_1_0_may_leave_the_host_out(server: str):
    answer = await all_of(server, request("/health/live", version="1.0"))
    twice = await all_of(server, request("/health/live", "localhost", "localhost", version="1.0"))

    assert (status_of(answer), status_of(twice)) == (200, 400)


async def test_the_host_of_an_absolute_target_is_used(server: str, settings):
    """RFC 9112 section 3.2.2: else a proxy and we would take the same request for another host's."""
    settings.REGISTRY_OPEN_TENANT = (await in_thread(make_tenant, f"open-{uuid4().hex[:8]}", open=True)).slug
    own, _ = await answer_to(server, request("http://localhost/payments?limit=1", "elsewhere.example"))
    other, _ = await answer_to(server, request("http://elsewhere.example/payments", "localhost"))
    bare = await all_of(server, request("http://localhost", "localhost"))
    none = await all_of(server, request("http://localhost/health/live"))

    assert (own, other, status_of(bare), status_of(none)) == (200, 400, 200, 400)
