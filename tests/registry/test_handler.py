"""The lean handler over real HTTP: no threads, limits of size and time for bodies, streams that stop, errors without details."""

import asyncio
import gzip
import json
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from copy import copy
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
import pytest
from asgiref.sync import SyncToAsync
from django.test import Client

from payments.books import queries
from payments.models import Payment
from registry.data import database
from registry.data.cache import Bounded
from registry.edge import handler, heads, protocol, status
from registry.models import Tenant
from registry.telemetry import context
from tests.conftest import Api, all_connections_are_back, eventually
from tests.depth import deep
from tests.factories import in_thread, make_payment, make_person, make_tenant
from tests.registry.raw_http import answer_to, line
from tests.servers import unreachable

# -- Lean -----------------------------------------------------------------------------------------------------


def test_paths_are_resolved_once_and_of_those_with_variables_only_recent_ones_are_kept(monkeypatch):
    monkeypatch.setattr(handler, "_recent", Bounded(2))
    fixed, first, *others = "/payments", *(f"/payments/{uuid4()}" for _ in range(3))
    long = f"/api/v1/pop/queue/{'q' * handler.RECENT_PATH}"

    assert handler._resolved(fixed) is handler._resolved(fixed) is not None
    kept = handler._resolved(first)
    assert handler._resolved(first) is kept is not None
    for path in others:
        assert handler._resolved(path) is handler._resolved(path)
    assert handler._resolved(first) is not kept  # two others were used since
    assert handler._resolved(long) is not handler._resolved(long)
    assert handler._resolved("/no/such/path") is None
    assert not {first, *others, "/no/such/path"} & set(handler._matches)


def test_the_head_of_a_request_is_read_when_it_is_asked_for():
    head = {
        "type": "http",
        "path": "/payments",
        "method": "HEAD",
        "query_string": b"a=1&a=2",
        "headers": [(b"x-a", b"1"), (b"x-a", b"2")],
    }
    match = handler._resolved("/payments")

    request = handler.LeanRequest(head, b"{}", match, None)
    before = set(vars(request))

    assert "META" not in before
    assert (request.GET.getlist("a"), request.body, request.method) == (["1", "2"], b"{}", "GET")
    assert "META" not in vars(request)
    assert request.headers["X-A"] == "1,2"
    assert (request.method, request.resolver_match) == ("GET", match)
    with pytest.raises(AttributeError):
        _ = request.no_such_thing


async def test_requests_to_the_api_use_no_thread(api: Api, monkeypatch):
    threads: list[str] = []
    api.session.headers["X-Request-Id"] = request = uuid4().hex
    loop = asyncio.get_running_loop()

    def watched(real: Callable[..., Any], name: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **options: Any) -> Any:
            if context.REQUEST.get() == request:  # not what runs in the background, such as the drain of the spill
                threads.append(str(name(*args)))
            return real(*args, **options)

        return called

    with monkeypatch.context() as watch:
        for owner, method, name in (
            (SyncToAsync, "__call__", lambda self, *_: self.func),
            (threading.Thread, "start", lambda self: self.name),
            (type(loop), "run_in_executor", lambda self, executor, work, *_: work),
        ):
            watch.setattr(owner, method, watched(getattr(owner, method), name))
        payment = await api.pay()
        for path in ("", "/status", "/events?wait=0"):
            async with api.get(f"/payments/{payment['correlationId']}{path}") as response:
                assert response.status == 200
        for path in ("/payments", "/payments-summary", "/openapi.json", "/health/live"):
            async with api.get(path) as response:
                assert response.status == 200
        async with api.post("/payments/batch", json={"items": [{"amount": 1}]}) as response:
            assert response.status == 200
        async with api.post(f"/payments/{payment['correlationId']}/cancel") as response:
            assert response.status == 200

    assert threads == []


async def test_every_response_has_a_request_id_the_callers_own_where_it_is_valid(api: Api):
    given = {"good": "abc-123_XYZ.0", "short": "abc", "strange": "a b c d e f g h", "long": "x" * 65}
    returned = {}

    for name, text in given.items():
        async with api.get("/payments", headers={"X-Request-Id": text}) as response:
            returned[name] = response.headers.getall("X-Request-Id")
    for path in ("/login", "/nowhere", "/payments/x/status", "/static/none.css"):
        async with api.get(path, headers={"Accept": "text/html"}) as response:
            assert len(response.headers.getall("X-Request-Id")) == 1

    assert returned["good"] == [given["good"]]
    assert all(len(returned[name]) == 1 and len(returned[name][0]) == 16 for name in ("short", "strange", "long"))


async def test_head_answers_like_get_without_the_body(api: Api):
    payment = await api.pay()
    for path in ("/payments", f"/payments/{payment['correlationId']}/status", "/health/live", "/openapi.json"):
        async with api.get(path) as got, api.session.head(path) as head:
            assert (head.status, head.headers["Content-Length"]) == (got.status, got.headers["Content-Length"])
            assert await head.read() == b""


async def test_an_unsupported_method_is_405_with_allow(api: Api):
    for path, allowed in (("/payments", "GET, POST"), ("/payments/batch", "POST"), ("/payments-summary", "GET")):
        async with api.session.delete(path) as response:
            body = await response.json(content_type="application/problem+json")
        assert (response.status, body["status"]) == (405, 405)
        assert response.headers["Allow"] == allowed


# -- Unknown addresses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "application/problem+json"])
async def test_an_unknown_address_is_problem_json_for_programs(api: Api, accept: str | None):
    headers = {"Accept": accept} if accept else {}

    async with api.get("/payment", headers=headers, skip_auto_headers=["Accept"]) as response:
        body = await response.json(content_type="application/problem+json")

    assert (response.status, body["status"], body["type"]) == (404, 404, "urn:registry:problem:not-found")
    assert "X-Request-Id" in response.headers


async def test_an_unknown_address_is_a_page_for_people(api: Api):
    async with api.get("/payment", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}) as response:
        text = await response.text()

    assert (response.status, response.content_type) == (404, "text/html")
    assert "<html" in text


@pytest.mark.parametrize("path", ["/admin/queues", "/admin/queues/", "/admin/queues/queues/0/"])
async def test_the_console_of_rq_is_not_served_even_to_an_operator(path: str):
    """Its pages need scripts that our content policy forbids, and act without asking why."""
    visit = Client()

    status = await in_thread(lambda: (visit.force_login(make_person()), visit.get(path).status_code)[1])

    assert status == 404


async def test_static_files_are_served_for_any_accept_header(api: Api):
    async with api.get("/static/registry/app.css", headers={"Accept": "*/*"}) as response:
        assert response.status == 200


@pytest.mark.parametrize("name", ["app.css", "table.js", "vendor/htmx.min.js"])
async def test_static_text_is_compressed_for_clients_that_accept_it(server: str, name: str):
    found = {}
    async with aiohttp.ClientSession(server, auto_decompress=False) as client:
        for accepted in ("gzip, br", "identity"):
            async with client.get(f"/static/registry/{name}", headers={"Accept-Encoding": accepted}) as response:
                assert response.headers["Vary"] == "Accept-Encoding"
                found[accepted] = response.headers.get("Content-Encoding"), await response.read()

    (coding, small), (plain, whole) = found["gzip, br"], found["identity"]
    assert (coding, plain) == ("gzip", None)
    assert len(small) < len(gzip.decompress(small)) / 2
    assert not whole or gzip.decompress(small) == whole  # of htmx only the compressed file is kept


# -- Bodies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/payments", "/login"])
async def test_a_body_announced_above_the_limit_is_413_before_it_is_sent(server: str, path: str, settings):
    most = 100 * 1024 * 1024
    request = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {most}\r\n\r\n"
    )

    status, answer = await answer_to(server, request.encode())

    assert status == 413
    assert b"application/problem+json" in answer


async def test_a_body_of_unknown_length_is_413_once_it_is_above_the_limit(server: str, key: str, settings):
    request = (
        f"POST /payments/batch HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    ).encode()
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"

    status, _ = await answer_to(server, request + chunk * (settings.MAX_BATCH_BODY // 0x10000 + 2))

    assert status == 413


@pytest.mark.parametrize("path", ["/payments", "/login"])
@pytest.mark.parametrize("sent", [b"", b'{"amount":'])
async def test_a_body_that_does_not_arrive_in_time_is_408(server: str, monkeypatch, path: str, sent: bytes):
    monkeypatch.setattr(handler, "BODY_TIMEOUT", 0.2)
    request = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n"

    status, answer = await answer_to(server, request.encode() + sent)

    assert status == 408
    assert b"connection: close" in answer.lower()


async def test_a_client_that_hangs_up_while_sending_its_body_leaves_nothing(api: Api, tenant):
    before = len(asyncio.all_tasks())
    for _ in range(50):
        async with line(api.address) as (_, writer):
            writer.write(
                f"POST /payments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.key}\r\nContent-Length: 99\r\n\r\n{{".encode()
            )
            await writer.drain()

    await eventually(lambda: len(asyncio.all_tasks()) <= before + 2)
    assert await database.fetch("SELECT count(*) FROM payments_payment WHERE tenant_id = %s", (tenant.pk,)) == [(0,)]


async def test_a_large_body_without_a_valid_key_is_refused_before_it_is_read(server: str):
    """Not a byte of the body is sent: whoever waits for it here does not answer in time."""
    request = (
        "POST /payments/batch HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer rk_0123456789ab_SECRET\r\n"
        f"Content-Type: application/json\r\nContent-Length: {1024 * 1024}\r\n\r\n"
    )

    status, answer = await answer_to(server, request.encode(), within=3)

    assert (status, b"application/problem+json" in answer) == (401, True)


@pytest.mark.parametrize(("more", "expected"), [(0, 403), (1, 413)], ids=["at the limit", "above it"])
async def test_a_form_may_have_256_kib(server: str, more: int, expected: int):
    """One at the limit gets as far as Django's check of where the form comes from (403)."""
    head = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    body = b"username=" + b"x" * (256 * 1024 + more - len(b"username="))
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:1000], body[1000:])) + b"0\r\n\r\n"

    announced, _ = await answer_to(server, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    streamed, _ = await answer_to(server, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)

    assert (announced, streamed) == (expected, expected)


# -- Streams ---------------------------------------------------------------------------------------------------------


async def test_an_interrupted_export_stops_reading_and_returns_its_connection(api: Api, tenant, settings, monkeypatch):
    settings.BATCH_SIZE = 1
    await in_thread(lambda: make_payments(tenant, 400))
    reads = 0
    real = queries._rows

    async def counted(*args: object) -> list:
        nonlocal reads
        reads += 1
        return await real(*args)

    monkeypatch.setattr(queries, "_rows", counted)
    request = (
        f"GET /payments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.key}\r\nAccept: text/csv\r\n\r\n".encode()
    )
    for _ in range(10):
        async with line(api.address) as (reader, writer):
            writer.write(request)
            await reader.readexactly(500)
            writer.transport.abort()

    await eventually(all_connections_are_back)
    seen = reads
    assert await database.fetch("SELECT 1") == [(1,)]
    assert seen < 10 * 41
    assert reads == seen


def make_payments(tenant: Tenant, many: int) -> None:
    """Rows as long as they may be, so that an export does not fit into the network's buffers."""
    first = make_payment(tenant, description="x" * 2000)
    rows = []
    for _ in range(many - 1):
        row = copy(first)
        row.pk, row._state.adding, row.correlation_id = None, True, uuid4()
        rows.append(row)
    Payment.objects.bulk_create(rows)


# -- Errors ----------------------------------------------------------------------------------------------------------


async def test_an_unexpected_error_is_a_500_without_internals(api: Api, monkeypatch):
    async def broken(*_: object, **__: object) -> None:
        raise ValueError("secret detail of /srv/registry and rk_0123456789ab_SECRET")

    monkeypatch.setattr(queries, "status_of", broken)

    async with api.get(f"/payments/{uuid4()}/status") as response:
        text = await response.text()

    assert (response.status, response.content_type) == (500, "application/problem+json")
    assert set(json.loads(text)) == {"type", "title", "status", "detail"}
    for inside in ("secret", "rk_", "ValueError", "Traceback", "/srv", ".py"):
        assert inside not in text


@pytest.mark.parametrize("path", ["", "/status"])
async def test_a_read_without_the_database_is_503_with_retry_after(api: Api, path: str):
    """The ORM's way and the hot one, both with a database where nobody listens."""
    payment = await api.pay()

    async with unreachable(), api.get(f"/payments/{payment['correlationId']}{path}") as response:
        body = await response.json(content_type="application/problem+json")

    assert (response.status, response.headers["Retry-After"]) == (503, "1")
    assert "127.0.0.1" not in str(body)


async def test_a_suspicious_operation_is_a_400_problem(server: str, settings):
    open_to_all = await in_thread(make_tenant, f"open-{uuid4().hex[:8]}", open=True)
    settings.REGISTRY_OPEN_TENANT = open_to_all.slug

    async with Api(server) as visitor, visitor.get("/payments", headers={"Host": "elsewhere.example"}) as response:
        body = await response.json(content_type="application/problem+json")

    assert (response.status, body["status"]) == (400, 400)
    assert "elsewhere.example" in body["detail"]


# -- Thousands that never finish ---------------------------------------------------------------------------------------

MANY = deep(2_000, 10_000)


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as the system lets us have; `up` does the same for its children."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard > 2 * MANY + 500, f"this machine does not let a process open {2 * MANY} sockets: raise the limit"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_thousands_of_connections_that_never_finish_their_request_do_not_stop_others(api: Api, many_files):
    halves = (
        b"GET /pay",
        b"POST /payments HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        f"POST /payments HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {api.key}\r\nContent-Length: 50\r\n\r\n{{".encode(),
    )
    await api.pay()
    where = ("127.0.0.1", urlsplit(api.address).port)
    open_ones: list[socket.socket] = []
    try:
        for n in range(MANY):
            sock = socket.create_connection(where)
            sock.send(halves[n % 3])
            open_ones.append(sock)
            if n % 50 == 0:
                await asyncio.sleep(0)
        took = []
        for _ in range(30):
            started = time.monotonic()
            await api.pay()
            took.append(time.monotonic() - started)
    finally:
        for sock in open_ones:
            sock.close()

    assert sorted(took)[15] < 0.25
    assert max(took) < 3


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"GET /hea", b"GET /health/live HTTP/1.1\r\nHost: x\r\n"])
async def test_a_request_line_or_headers_that_do_not_arrive_in_time_end_the_connection(
    server: str, monkeypatch, sent: bytes
):
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT", 0.2)
    async with line(server) as (reader, writer):
        writer.write(sent)

        async with asyncio.timeout(3):
            assert await reader.read() == b""


async def test_a_second_request_on_the_same_connection_has_its_own_time(server: str, monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT", 0.2)
    whole = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with line(server) as (reader, writer), asyncio.timeout(5):
        writer.write(whole)
        first = await reader.readuntil(b'{"status":"alive"}')
        await asyncio.sleep(0.3)  # an idle connection is nobody's harm
        writer.write(whole)
        second = await reader.readuntil(b'{"status":"alive"}')
        writer.write(whole[:20])
        rest = await reader.read()

    assert (first[:12], second[:12], rest) == (b"HTTP/1.1 200", b"HTTP/1.1 200", b"")


def test_the_limits_have_the_documented_values():
    assert (heads.LIMIT, heads.FIELDS) == (65536, 200)
    assert (handler.BODY_TIMEOUT, protocol.HEAD_TIMEOUT, status.CHECK_TIMEOUT) == (20, 10.0, 2.0)
