"""Websockets of contract section 3: authorization, events, resume, bad messages, slow readers, many at once."""

import asyncio
import json
import resource
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client

from payments.api import sockets
from payments.api.socket_urls import websocket_urlpatterns
from payments.books import events
from payments.books.payer import payers_view
from registry.data import database, live
from registry.edge import live_socket
from registry.models import Membership
from registry.tenants import access
from tests.conftest import Api, at_work, eventually, make_key
from tests.depth import deep
from tests.factories import in_thread, make_payment, make_processor, make_tenant
from tests.waiting import PATIENCE

NO_RIGHT, BAD_MESSAGE, TOO_SLOW, RESTART = 4401, 4400, 4408, 1012


@pytest.fixture
async def sandbox(tenant):
    """A processor in the database alone, quick and well."""
    return await in_thread(make_processor, tenant, "default", options={"delay": 0})


async def read(ws: aiohttp.ClientWebSocketResponse, within: float = 5) -> Any:
    message = await ws.receive(within)
    return json.loads(message.data) if message.type is aiohttp.WSMsgType.TEXT else message


async def close_code(ws: aiohttp.ClientWebSocketResponse) -> int:
    """The code that the server ends with, whatever it says before."""
    async with asyncio.timeout(PATIENCE):
        async for _ in ws:
            pass
    return ws.close_code


async def read_until(ws: aiohttp.ClientWebSocketResponse, status: str) -> list[dict]:
    messages = []
    while not messages or messages[-1]["payment"]["status"] != status:
        messages.append(await read(ws, PATIENCE))
    return messages


async def listening(ws: aiohttp.ClientWebSocketResponse) -> None:
    """Past authority and subscription: only then is a request answered."""
    await ws.send_json({"type": "ping"})
    assert await read(ws) == {"type": "pong"}


def by_link(api: Api, payment: dict) -> Any:
    """The payment's socket, with the token from its live link."""
    token = urlsplit(payment["liveUrl"]).query
    return aiohttp.ClientSession(api.address), f"/ws/payments/{payment['correlationId']}?{token}"


@asynccontextmanager
async def payers_socket(api: Api, payment: dict) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    session, path = by_link(api, payment)
    async with session, session.ws_connect(path) as ws:
        yield ws


# -- Who may listen ---------------------------------------------------------------------------------------


async def test_the_link_of_a_payment_opens_its_socket_without_a_key(api: Api):
    payment = await api.pay("19.90")

    async with payers_socket(api, payment) as ws:
        greeting = await read(ws)

    view = payers_view(await api.detail(payment["correlationId"]))
    assert greeting == {"type": "payment", "sequence": 1, "payment": view}


@pytest.mark.parametrize(
    "query", ["", "?token=", "?token={tenant:x}.AAAAAAAAAAAAAAAAAAAA", "?token=zz", "?token=%00%ff"]
)
async def test_a_wrong_or_missing_token_is_4401(api: Api, tenant, query: str):
    payment = await api.pay()

    async with aiohttp.ClientSession(api.address) as nobody:
        async with nobody.ws_connect(f"/ws/payments/{payment['correlationId']}{query.format(tenant=tenant.pk)}") as ws:
            code = await close_code(ws)

    assert code == NO_RIGHT


async def test_the_token_of_one_payment_does_not_open_another(api: Api):
    mine, other = await api.pay(), await api.pay()
    token = urlsplit(mine["liveUrl"]).query

    async with aiohttp.ClientSession(api.address) as nobody:
        async with nobody.ws_connect(f"/ws/payments/{other['correlationId']}?{token}") as ws:
            code = await close_code(ws)

    assert code == NO_RIGHT


async def test_a_key_opens_the_stream_and_each_payment_of_its_tenant(api: Api):
    payment = await api.pay()

    async with (
        api.ws_connect("/ws/payments") as stream,
        api.ws_connect(f"/ws/payments/{payment['correlationId']}") as one,
    ):
        await listening(stream)
        greeting = await read(one)

    assert greeting["payment"]["correlationId"] == payment["correlationId"]


async def test_another_tenants_key_is_4401_for_a_payment_that_exists_as_for_one_that_does_not(api: Api, stranger: Api):
    payment = await api.pay()
    codes = []

    for correlation_id in (payment["correlationId"], uuid4()):
        async with stranger.ws_connect(f"/ws/payments/{correlation_id}") as ws:
            codes.append(await close_code(ws))

    assert codes == [NO_RIGHT, NO_RIGHT]


async def test_the_stream_of_another_tenant_shows_none_of_these_payments(api: Api, stranger: Api, sandbox, worker):
    async with stranger.ws_connect("/ws/payments") as ws:
        await ws.send_json({"type": "resume", "after": 0})
        await listening(ws)
        payment = await api.pay()
        await api.until(payment["correlationId"], "succeeded")
        await ws.send_json({"type": "list", "id": 1})
        answer = await read(ws)

    assert answer == {"type": "list", "id": 1, "items": [], "total": 0}


async def test_keys_without_the_read_scope_revoked_or_invented_are_4401(server: str, tenant):
    writer, revoked = await make_key(tenant, "write"), await make_key(tenant)
    async with database.own_connection():
        await access.revoke_key(tenant_id=tenant.pk, prefix=revoked.split("_")[1])
    codes = []

    for key in (writer, revoked, "rk_000000000000_invented", "nonsense"):
        async with Api(server, key) as client, client.ws_connect("/ws/payments") as ws:
            codes.append(await close_code(ws))

    assert codes == [NO_RIGHT] * 4


async def session_cookie(tenant, role: str = "viewer") -> str:
    def sign_in() -> str:
        person = get_user_model().objects.create_user(f"person-{uuid4().hex[:8]}")
        Membership.objects.create(tenant=tenant, user=person, role=role)
        client = Client()
        client.force_login(person)
        return client.cookies[settings.SESSION_COOKIE_NAME].value

    return await in_thread(sign_in)


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [("own", True), ("https://evil.example", False), ("http://127.0.0.1:1", False), ("null", False), (None, False)],
)
async def test_a_session_opens_the_stream_from_our_own_pages_only(
    server: str, tenant, origin: str | None, allowed: bool
):
    cookies = {settings.SESSION_COOKIE_NAME: await session_cookie(tenant)}
    headers = {} if origin is None else {"Origin": server if origin == "own" else origin}

    async with aiohttp.ClientSession(server, cookies=cookies, headers=headers) as browser:
        async with browser.ws_connect("/ws/payments") as ws:
            if allowed:
                await listening(ws)
            else:
                assert await close_code(ws) == NO_RIGHT


@pytest.fixture
async def open_tenant(settings):
    tenant = await in_thread(make_tenant, f"open-{uuid4().hex[:8]}", open=True)
    settings.REGISTRY_OPEN_TENANT = tenant.slug
    return tenant


FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "null"},
    {"Origin": "evil.example"},
    {"Origin": "http://rebound.example:{port}", "Host": "rebound.example:{port}"},
    {"Host": "rebound.example:{port}"},
]


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize("cookie", [False, True], ids=["nobody", "a member"])
async def test_no_socket_opens_for_another_sites_page_or_under_a_name_that_is_not_ours(
    server: str, open_tenant, headers: dict[str, str], cookie: bool
):
    """Neither by the visitor's session nor as the open tenant. A browser sends no key by itself."""
    port = urlsplit(server).port
    headers = {name: text.format(port=port) for name, text in headers.items()}
    session = {settings.SESSION_COOKIE_NAME: await session_cookie(open_tenant) if cookie else "none"}
    payment = (await in_thread(make_payment, open_tenant)).correlation_id
    codes = []

    async with aiohttp.ClientSession(server, cookies=session, headers=headers) as browser:
        for route in websocket_urlpatterns:
            path = "/" + str(route.pattern).replace("<uuid:correlation_id>", str(payment))
            async with browser.ws_connect(path) as ws:
                codes.append(await close_code(ws))

    assert codes == [NO_RIGHT] * len(websocket_urlpatterns)


@pytest.mark.parametrize("headers", [{}, {"Origin": "own"}, {"Origin": "http://localhost:9", "Host": "localhost:9"}])
async def test_the_open_tenants_stream_opens_for_programs_and_for_our_own_pages(
    server: str, open_tenant, headers: dict[str, str]
):
    headers = {name: server if text == "own" else text for name, text in headers.items()}

    async with aiohttp.ClientSession(server, headers=headers) as visitor, visitor.ws_connect("/ws/payments") as ws:
        await listening(ws)


@pytest.mark.parametrize("headers", FOREIGN)
async def test_a_key_and_a_payments_link_open_their_sockets_from_anywhere(api: Api, headers: dict[str, str]):
    """As over HTTP: no page has them but one that was given them."""
    payment = await api.pay()
    headers = {name: text.format(port=80) for name, text in headers.items()}
    token = urlsplit(payment["liveUrl"]).query

    async with api.ws_connect("/ws/payments", headers=headers) as ws:
        await listening(ws)
    async with aiohttp.ClientSession(api.address, headers=headers) as payer:
        async with payer.ws_connect(f"/ws/payments/{payment['correlationId']}?{token}") as ws:
            assert (await read(ws))["payment"]["status"] == "queued"


async def test_a_handshake_to_no_socket_or_with_a_malformed_host_is_refused(api: Api, caplog):
    for path, headers, status in (("/ws/nowhere", {}, 404), ("/ws/payments", {"Host": "a b"}, 400)):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await api.ws_connect(path, headers=headers)
        assert refused.value.status == status
        assert "X-Request-Id" in refused.value.headers

    assert caplog.text == ""


async def test_a_session_does_not_open_the_stream_of_a_tenant_it_is_no_member_of(server: str, tenant):
    other = await in_thread(make_tenant)
    cookies = {settings.SESSION_COOKIE_NAME: await session_cookie(tenant)}

    async with aiohttp.ClientSession(server, cookies=cookies, headers={"Origin": server}) as browser:
        async with browser.ws_connect(f"/ws/payments?tenant={other.slug}") as ws:
            code = await close_code(ws)

    assert code == NO_RIGHT


# -- What is sent ---------------------------------------------------------------------------------------------


async def test_every_change_of_a_payment_is_sent_in_order_with_its_status_object(api: Api, sandbox):
    payment = await api.pay("19.90")
    async with api.ws_connect(f"/ws/payments/{payment['correlationId']}") as ws, at_work():
        messages = await read_until(ws, "succeeded")

    assert [m["sequence"] for m in messages] == [1, 2, 3]
    assert [m["payment"]["status"] for m in messages] == ["queued", "processing", "succeeded"]
    assert messages[-1] == {"type": "payment", "sequence": 3, "payment": await api.status(payment["correlationId"])}


async def test_a_change_is_on_the_socket_well_under_a_second_after_its_commit(api: Api, sandbox, worker):
    lags = []
    async with api.ws_connect("/ws/payments") as ws:
        await listening(ws)
        for _ in range(10):
            payment = await api.pay()
            await read_until(ws, "succeeded")
            seen = time.time()
            settled_at = (await api.detail(payment["correlationId"]))["timeline"][-1]["at"]
            lags.append(seen - iso_seconds(settled_at))

    assert sorted(lags)[5] < 0.5
    assert sorted(lags)[8] < 1.0


def iso_seconds(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


async def test_a_ping_is_answered(api: Api):
    async with api.ws_connect("/ws/payments") as ws:
        await ws.send_str('{"type":"ping"}')

        assert await read(ws) == {"type": "pong"}


async def test_a_list_answers_with_its_id_the_filtered_items_and_the_total(api: Api):
    for _ in range(3):
        await api.pay()
    wanted = {"type": "list", "id": "a", "filter": {"status": "queued"}, "limit": 2}

    async with api.ws_connect("/ws/payments") as ws:
        await ws.send_json(wanted)
        some = await read(ws)
        await ws.send_json({"type": "list", "id": 7, "filter": {"status": "failed"}})
        none = await read(ws)

    assert (some["type"], some["id"], len(some["items"]), some["total"]) == ("list", "a", 2, 3)
    async with api.get("/payments?limit=2&status=queued") as response:
        assert some["items"] == (await response.json())["items"]
    assert none == {"type": "list", "id": 7, "items": [], "total": 0}


async def test_a_subscription_narrows_the_stream_until_it_is_lifted(api: Api, sandbox):
    wanted, other = await api.pay(), await api.pay()
    async with api.ws_connect("/ws/payments") as ws:
        await ws.send_json({"type": "subscribe", "ids": [wanted["correlationId"]]})
        answer = await read(ws)
        async with at_work():
            await api.until(other["correlationId"], "succeeded")
            narrowed = await read_until(ws, "succeeded")
            await ws.send_json({"type": "subscribe", "ids": []})
            await read(ws)
            third = await api.pay()
            everything = await read_until(ws, "succeeded")

    assert answer == {"type": "subscribed", "ids": [wanted["correlationId"]]}
    assert {m["payment"]["correlationId"] for m in narrowed} == {wanted["correlationId"]}
    assert everything[-1]["payment"]["correlationId"] == third["correlationId"]


# -- Resuming ---------------------------------------------------------------------------------------------------


async def test_resuming_sends_everything_after_the_sequence_in_order(api: Api, sandbox, worker):
    payment = await api.pay()
    await api.until(payment["correlationId"], "succeeded")

    async with payers_socket(api, payment) as ws:
        await read(ws)
        await ws.send_json({"type": "resume", "after": 1})
        messages = [await read(ws), await read(ws)]
        await listening(ws)

    assert [m["sequence"] for m in messages] == [2, 3]


async def test_a_stream_resumed_repeatedly_while_payments_settle_misses_and_repeats_nothing(api: Api, sandbox):
    received: list[int] = []
    payments = 300

    async def read_on(ws: aiohttp.ClientWebSocketResponse, many: int) -> None:
        while many and (not received or received[-1] < payments * 3):
            received.append((await read(ws, 10))["sequence"])
            many -= 1

    async with asyncio.TaskGroup() as group, at_work():
        accepting = group.create_task(pay_many(api, payments))
        for cut_after in (1, 40, 3, 100, 7, 150, 2, 10**6):
            async with api.ws_connect("/ws/payments") as ws:
                await ws.send_json({"type": "resume", "after": received[-1] if received else 0})
                await read_on(ws, cut_after)
        await accepting

    assert received == list(range(1, payments * 3 + 1))


async def pay_many(api: Api, payments: int) -> None:
    for _ in range(payments // 50):
        items = [{"correlationId": str(uuid4()), "amount": "1.00"} for _ in range(50)]
        async with api.post("/payments/batch", json={"items": items}) as response:
            assert response.status == 200


@pytest.mark.parametrize("after", [0, 50])
async def test_changes_committed_during_a_resume_are_sent_once_after_it(api: Api, tenant, monkeypatch, after: int):
    """The read of the past is held open until the pump has passed new events by; none of them is lost or doubled."""
    await pay_many(api, 50)
    reading, go_on = asyncio.Event(), asyncio.Event()
    real = events.STREAM.since

    async def slowly(*args: Any) -> Any:
        found = await real(*args)
        reading.set()
        await go_on.wait()
        return found

    async with api.ws_connect("/ws/payments") as ws:
        await listening(ws)
        monkeypatch.setattr(events.STREAM, "since", slowly)
        await ws.send_json({"type": "resume", "after": after})
        await reading.wait()
        late = await api.pay()
        feed = live.hub().feeds["payments", tenant.pk]
        await eventually(lambda: feed.position == 51)
        go_on.set()
        numbers = [(await read(ws))["sequence"] for _ in range(51 - after)]
        await listening(ws)

    assert numbers == list(range(after + 1, 52))
    assert late["status"] == "queued"


async def test_changes_before_the_clients_resume_message_are_not_sent_twice(api: Api, tenant, monkeypatch):
    monkeypatch.setattr(live_socket, "OPENING", 5)
    async with api.ws_connect("/ws/payments") as ws:
        await eventually(lambda: ("payments", tenant.pk) in live.hub().feeds)
        await pay_many(api, 50)
        await eventually(lambda: live.hub().feeds["payments", tenant.pk].position == 50)

        await ws.send_json({"type": "resume", "after": 10})

        assert [(await read(ws))["sequence"] for _ in range(40)] == list(range(11, 51))
        await listening(ws)
        await api.pay()
        assert (await read(ws))["sequence"] == 51


async def test_a_change_that_the_first_message_includes_is_not_sent_again(api: Api, tenant, monkeypatch):
    payment = await api.pay()
    real, calls = sockets.queries.item_of, 0

    async def after_the_change(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:  # the first asks who may listen, the second is the greeting's
            async with api.post(f"/payments/{payment['correlationId']}/cancel") as response:
                assert response.status == 200
            await eventually(lambda: live.hub().feeds["payments", tenant.pk].position == 2)
        return await real(*args)

    monkeypatch.setattr(sockets.queries, "item_of", after_the_change)
    async with payers_socket(api, payment) as ws:
        greeting = await read(ws)
        await listening(ws)
        await listening(ws)  # by now the pump has had its turn

    assert (greeting["sequence"], greeting["payment"]["status"]) == (2, "canceled")


async def test_a_client_that_hangs_up_during_a_resume_leaves_no_subscription(api: Api, tenant, monkeypatch):
    await pay_many(api, 50)
    reading, go_on = asyncio.Event(), asyncio.Event()
    real = events.STREAM.since

    async def slowly(*args: Any) -> Any:
        reading.set()
        await go_on.wait()
        return await real(*args)

    async with api.ws_connect("/ws/payments") as ws:
        await listening(ws)
        monkeypatch.setattr(events.STREAM, "since", slowly)
        await ws.send_json({"type": "resume", "after": 0})
        await reading.wait()
        ws._response.connection.transport.abort()
    go_on.set()

    await eventually(lambda: ("payments", tenant.pk) not in live.hub().feeds)


# -- Bad messages ------------------------------------------------------------------------------------------------

BAD = {
    "not JSON": "hello",
    "half JSON": '{"type":"ping"',
    "no object": "[]",
    "no type": "{}",
    "unknown type": '{"type":"shutdown"}',
    "unknown field": '{"type":"ping","and":1}',
    "wrong kind": '{"type":"resume","after":"x"}',
    "negative": '{"type":"resume","after":-1}',
    "beyond any number": '{"type":"resume","after":99999999999999999999999}',
    "no id": '{"type":"list"}',
    "limit zero": '{"type":"list","id":1,"limit":0}',
    "limit huge": '{"type":"list","id":1,"limit":100000}',
    "unknown status": '{"type":"list","id":1,"filter":{"status":"lost"}}',
    "a time that is none": '{"type":"list","id":1,"filter":{"from":"yesterday"}}',
    "a time without zone": '{"type":"list","id":1,"filter":{"from":"2025-01-01T00:00:00"}}',
    "NUL": '{"type":"list","id":1,"filter":{"processor":"a\\u0000b"}}',
    "ids that are none": '{"type":"subscribe","ids":["x"]}',
    "too many ids": json.dumps({"type": "subscribe", "ids": [str(uuid4())] * 501}),
    "too big": json.dumps({"type": "list", "id": "x" * 20_000}),
    "much too big": json.dumps({"type": "list", "id": "x" * 900_000}),
    "deep": "[" * 8_000,
    "deep objects": '{"a":' * 3_000,
}


@pytest.mark.parametrize("frame", BAD.values(), ids=BAD.keys())
async def test_an_invalid_message_gets_an_error_and_4400(api: Api, frame: str):
    async with api.ws_connect("/ws/payments") as ws:
        await ws.send_str(frame)
        answer = await read(ws)
        code = await close_code(ws)

    assert (answer["type"], code) == ("error", BAD_MESSAGE)
    assert len(answer["detail"]) < 400


async def test_a_binary_frame_gets_an_error_and_4400(api: Api):
    async with api.ws_connect("/ws/payments") as ws:
        await ws.send_bytes(b'{"type":"ping"}')
        answer = await read(ws)
        code = await close_code(ws)

    assert (answer["type"], code) == ("error", BAD_MESSAGE)


async def test_too_many_messages_get_an_error_and_4400(api: Api):
    async with api.ws_connect("/ws/payments") as ws:
        for _ in range(live_socket.BURST + 20):
            await ws.send_str('{"type":"ping"}')
        async with asyncio.timeout(5):
            answers = [json.loads(message.data) async for message in ws]

    assert answers[-1]["type"] == "error"
    assert "too many" in answers[-1]["detail"]
    assert ws.close_code == BAD_MESSAGE


@pytest.mark.parametrize("message", [{"type": "list", "id": 1}, {"type": "subscribe", "ids": []}])
async def test_the_payers_socket_shows_its_payment_and_nothing_else(api: Api, message: dict):
    payment = await api.pay()

    async with payers_socket(api, payment) as ws:
        await read(ws)
        await ws.send_json(message)
        answer = await read(ws)
        code = await close_code(ws)

    assert (answer["type"], code) == ("error", BAD_MESSAGE)


# -- Slow and many -----------------------------------------------------------------------------------------------


async def test_a_socket_that_does_not_read_is_closed_with_4408_and_delays_no_other(api: Api, tenant, monkeypatch):
    monkeypatch.setattr(live, "MAILBOX", 50)
    monkeypatch.setattr(live_socket, "SEND_TIMEOUT", 0.3)
    feeds = live.hub().feeds
    async with sluggish(api) as slow, api.ws_connect("/ws/payments") as ws:
        await listening(ws)
        await eventually(lambda: len(feeds["payments", tenant.pk].streams) == 2)
        body = b'{"status":"queued","filler":"%b"}' % (b"x" * 60_000)

        for position in range(1, 121):
            feeds["payments", tenant.pk].offer(live.Event("payments", tenant.pk, position, "s", 1, body))
            assert (await read(ws))["sequence"] == position
        await eventually(lambda: len(feeds["payments", tenant.pk].streams) == 1)

        code = await slow.read_to_the_close()
    assert code == TOO_SLOW


class Sluggish:
    """A websocket client on a bare socket with a small buffer that reads when told to and not before."""

    def __init__(self, api: Api) -> None:
        self.api = api

    async def __aenter__(self) -> "Sluggish":
        address = urlsplit(self.api.address)
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, (address.hostname, address.port))
        self.reader, self.writer = await asyncio.open_connection(sock=raw, limit=4096)
        self.writer.write(
            (
                f"GET /ws/payments HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
                f"Authorization: Bearer {self.api.key}\r\n\r\n"
            ).encode()
        )
        await self.reader.readuntil(b"\r\n\r\n")
        return self

    async def __aexit__(self, *error: object) -> None:
        self.writer.close()

    async def read_to_the_close(self) -> int:
        """The code of the close frame after all that was sent before it."""
        while True:
            head = await asyncio.wait_for(self.reader.readexactly(2), 5)
            length = head[1] & 0x7F
            if length >= 126:
                length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8))
            payload = await self.reader.readexactly(length)
            if head[0] & 0x0F == 8:
                return int.from_bytes(payload[:2])


sluggish = Sluggish


SOCKETS = deep(200, 1000)


async def test_many_open_sockets_cost_a_worker_nothing_and_leave_nothing(api: Api, tenant, sandbox):
    feeds = live.hub().feeds
    memory_before, files_before = resident(), open_files()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        api.address, connector=connector, headers={"Authorization": f"Bearer {api.key}"}
    ) as many:
        sockets = []
        for _ in range(SOCKETS // 50):
            sockets += await asyncio.gather(*(many.ws_connect("/ws/payments") for _ in range(50)))
        await eventually(
            lambda: ("payments", tenant.pk) in feeds and len(feeds["payments", tenant.pk].streams) == SOCKETS
        )
        looks = [await quiet_look(seconds=0.2) for _ in range(3)]
        lag, used = map(min, zip(*looks, strict=True))  # what stands still, or is collected, for others is not ours
        async with at_work():
            payment = await api.pay()
            await asyncio.gather(*(read_until(ws, "succeeded") for ws in sockets))
        memory = resident() - memory_before
        await asyncio.gather(*(ws.close() for ws in sockets))
    await eventually(lambda: ("payments", tenant.pk) not in feeds)

    assert lag < 0.15
    assert used < 0.05  # seconds of CPU
    assert memory < SOCKETS * 150 * 1024  # both ends of each socket live in this process
    await eventually(lambda: open_files() < files_before + 50)
    assert payment["status"] == "queued"


async def quiet_look(*, seconds: float) -> tuple[float, float]:
    """The longest time that the loop did not come round, and the CPU time that this process used."""
    loop, worst, used = asyncio.get_running_loop(), 0.0, time.process_time()
    end = loop.time() + seconds
    while (before := loop.time()) < end:
        await asyncio.sleep(0.005)
        worst = max(worst, loop.time() - before - 0.005)
    return worst, time.process_time() - used


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def open_files() -> int:
    import os

    return len(os.listdir("/proc/self/fd"))


async def test_a_socket_ends_within_seconds_of_its_key_s_revocation(api: Api, tenant, key):
    async with api.ws_connect("/ws/payments") as socket:
        await socket.send_json({"type": "ping"})
        assert await socket.receive_json() == {"type": "pong"}

        async with database.own_connection():
            await access.revoke_key(tenant_id=tenant.pk, prefix=key.split("_")[1])
        message = await socket.receive(timeout=5)

    assert (message.type, socket.close_code) == (aiohttp.WSMsgType.CLOSE, 4401)
