"""HTTP/1.1 as bytes: limits for heads, trailers and chunk extensions; responses reach clients that are still sending."""

import asyncio
import gzip
import http.client
import json
import shutil
import socket
import time
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
import pytest

from registry.edge import handler, protocol
from tests.conftest import Api, eventually
from tests.registry.raw_http import all_of, answer_to, line, status_of

GET = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
POST = b"POST /payments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"
MUCH = b"x" * 70_000
HANDSHAKE = (
    b"GET /ws/payments HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
LARGE = 6_000_000  # bytes: more than the buffers of a connection hold


# -- Limits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        GET + b"A: " + MUCH,
        GET + b"A: " + MUCH + b"\r\n\r\n",
        GET + b"A: " + b" " * 70_000,
        GET + MUCH,
        b"GET /" + MUCH,
        b"GET /?" + MUCH + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        GET + b"A: b\r\n" * 199 + b"\r\n",
        b"\r\n" * 35_000,
        HANDSHAKE + b"Cookie: " + MUCH + b"\r\n\r\n",
        HANDSHAKE + b"A: b\r\n" * 196 + b"\r\n",
        CHUNKED + b"\r\n1\r\n{\r\n0\r\nA: " + MUCH,
        CHUNKED + b"\r\n1\r\n{\r\n0\r\n" + b"A: b\r\n" * 201 + b"\r\n",
        CHUNKED + b"\r\n1;" + MUCH,
        CHUNKED + b"\r\n" + b"1;%b\r\n \r\n" % (b"x" * 700) * 100 + b"0\r\n\r\n",
    ],
    ids=[
        "a value that does not end", "a value", "spaces before a value", "a name", "a path that does not end", "a query",
        "201 headers", "empty lines", "a handshake", "a handshake's 201 headers", "a trailer", "201 trailers",
        "a chunk's extension", "many extensions",
    ],
)  # fmt: skip
async def test_a_head_above_64_kib_or_200_fields_is_431_at_once(server: str, request_: bytes):
    answer = await all_of(server, request_, within=3)

    head, _, body = answer.partition(b"\r\n\r\n")
    assert status_of(answer) == 431
    assert b"content-type: application/problem+json" in head
    assert b"x-request-id: " in head
    assert json.loads(body)["status"] == 431


@pytest.mark.parametrize(
    "request_",
    [
        GET + b"A: " + b"x" * 65_000 + b"\r\n\r\n",
        GET + b"A: b\r\n" * 198 + b"\r\n",
        GET.replace(b"/live", b"/live?" + b"x" * 60_000) + b"\r\n",
        b"\r\n\r\n" + GET + b"\r\n",
    ],
    ids=["64 KiB", "200 headers", "a query", "empty lines"],
)
async def test_a_head_within_the_limits_is_served_however_it_is_split(server: str, request_: bytes):
    whole = await all_of(server, request_)
    async with line(server) as (reader, writer):
        for start in range(0, len(request_), 1500):
            writer.write(request_[start : start + 1500])
            await writer.drain()
        pieces = await reader.read()

    assert (status_of(whole), status_of(pieces)) == (200, 200)


async def test_many_requests_in_one_packet_are_not_one_large_head(server: str):
    many = GET.replace(b"Connection: close\r\n", b"") + b"\r\n"

    answer = await all_of(server, many * 2000 + GET + b"\r\n", within=20)

    assert answer.count(b'{"status":"alive"}') == 2001


async def test_a_body_in_tiny_chunks_with_small_trailers_is_read(server: str, api: Api):
    body = json.dumps({"amount": 1, "description": "x" * 400}).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\nX-Checksum: 1\r\n\r\n"
    head = CHUNKED + b"Connection: close\r\nAuthorization: Bearer " + api.key.encode() + b"\r\n\r\n"

    assert status_of(await all_of(server, head + chunks)) == 202


async def test_a_trailer_is_no_header(server: str, key: str):
    """A proxy that looks at heads alone must not be passed by."""
    body = b"\r\nc\r\n" + b'{"amount":1}' + b"\r\n0\r\nAuthorization: Bearer " + key.encode() + b"\r\n\r\n"

    assert status_of(await all_of(server, CHUNKED + b"Connection: close\r\n" + body)) == 401


@pytest.mark.parametrize("before", [GET + b"A: ", CHUNKED + b"\r\n1\r\n{\r\n0\r\nA: "], ids=["a header", "a trailer"])
async def test_forty_megabytes_of_one_field_delay_no_other_request(server: str, api: Api, before: bytes):
    where = urlsplit(server)

    def attack() -> bytes:
        with socket.create_connection((where.hostname, where.port), timeout=10) as sock:
            sock.sendall(before + b"x" * 40_000_000)
            return sock.recv(100)

    sending = asyncio.create_task(asyncio.to_thread(attack))
    waits = []
    while not sending.done():
        started = time.monotonic()
        async with api.get("/health/live") as response:
            assert response.status == 200
        waits.append(time.monotonic() - started)

    assert status_of(await sending) == 431
    assert max(waits) < 0.5


@pytest.mark.parametrize("more", [{"Cookie": "x" * 50_000}, {f"X-{n}": "1" for n in range(180)}])
async def test_a_handshake_within_the_limits_opens_its_socket(api: Api, more: dict[str, str]):
    async with api.ws_connect("/ws/payments", headers=more) as ws:
        await ws.send_json({"type": "ping"})

        assert await ws.receive_json(timeout=5) == {"type": "pong"}


@pytest.mark.parametrize(
    "request_",
    [HANDSHAKE.replace(b"GET", b"POST") + b"\r\n", HANDSHAKE + b"Content-Length: 3\r\n\r\nabc"],
    ids=["a method that is none", "a body"],
)
async def test_an_invalid_handshake_gets_a_response(server: str, request_: bytes):
    assert status_of(await all_of(server, request_)) in (400, 405)


async def test_trailers_that_do_not_end_have_the_time_of_the_body(server: str, monkeypatch):
    monkeypatch.setattr(handler, "BODY_TIMEOUT", 0.2)

    answer = await all_of(server, CHUNKED + b"\r\n1\r\n{\r\n0\r\nA: ")

    assert status_of(answer) == 408


# -- Framing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
        (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
        (POST + b"Content-Length: 3, 3\r\n\r\nabc", 400),
        (POST + b"Content-Length: +3\r\n\r\nabc", 400),
        (CHUNKED + b"Content-Length: 3\r\n\r\n1\r\na\r\n0\r\n\r\n", 400),
        (CHUNKED + b"Transfer-Encoding: identity\r\n\r\n1\r\na\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip, chunked\r\nConnection: close\r\n\r\n1\r\na\r\n0\r\n\r\n", 501),
        (CHUNKED.replace(b"1.1", b"1.0") + b"\r\n1\r\na\r\n0\r\n\r\n", 400),
        (CHUNKED + b"\r\nzz\r\n", 400),
        (GET.replace(b"1.1", b"2.0") + b"\r\n", 400),
        (GET + b" folded: line\r\n\r\n", 400),
        (GET + b"Spaced : name\r\n\r\n", 400),
        (b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00", 400),
    ],
)
async def test_a_request_that_two_readers_could_read_in_two_ways_is_refused(
    server: str, request_: bytes, expected: int
):
    answer = await all_of(server, request_)

    assert status_of(answer) == expected
    assert answer.count(b"\r\n\r\n") == 1
    assert b"application/problem+json" in answer


async def test_an_offer_to_upgrade_to_http_2_is_declined_and_the_body_read(server: str, key: str):
    """As Java's HttpClient sends it with its first request."""
    body = b'{"amount":1}'
    head = POST + (
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
        b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n" % (key.encode(), len(body))
    )

    status, _ = await answer_to(server, head + body)

    assert status == 202


# -- Answers to clients that are still sending -------------------------------------------------------------------

NODE = """
import http from 'node:http'
const [url, size] = process.argv.slice(1), body = Buffer.alloc(+size, 32), seen = []
const json = {'content-type': 'application/json'}
const slices = () => { let left = body.length; return new ReadableStream({ pull(c) {
  if (left <= 0) return c.close()
  c.enqueue(body.subarray(0, 65536)); left -= 65536 }}) }
const tell = async (name, asked) => {
  try { const r = await asked(); seen.push([name, r.status, (await r.json()).status]) }
  catch (e) { seen.push([name, e.message, e.cause?.code]) }}
for (let i = 0; i < 4; i++) await tell('fetch', () => fetch(url, {method: 'POST', body, headers: json}))
await tell('fetch, closing', () => fetch(url, {method: 'POST', body, headers: {...json, connection: 'close'}}))
await tell('fetch, streaming', () => fetch(url, {method: 'POST', body: slices(), duplex: 'half', headers: json}))
for (const keepAlive of [true, false]) { const agent = new http.Agent({keepAlive})
  for (let i = 0; i < 2; i++) await tell('http', () => new Promise((resolve, reject) => {
    const q = http.request(url, {method: 'POST', agent, headers: {...json, 'content-length': body.length}}, (r) => {
      let text = ''; r.on('data', (d) => text += d)
      r.on('end', () => resolve({status: r.statusCode, json: () => JSON.parse(text)})) })
    q.on('error', reject); q.end(body) })) }
console.log(JSON.stringify(seen)); process.exit(0)
"""


async def run(*command: str, given: bytes = b"") -> bytes:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    said, _ = await asyncio.wait_for(process.communicate(given), 60)
    return said


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
async def test_node_reads_the_413_whether_it_keeps_its_connections_or_not(server: str):
    said = await run("node", "--input-type=module", "-e", NODE, "--", f"{server}/payments", str(LARGE))

    seen = json.loads(said)
    assert len(seen) == 10
    assert [entry for entry in seen if entry[1:] != [413, 413]] == []


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize("headers", [(), ("Expect:",), ("Transfer-Encoding: chunked",)])
async def test_curl_reads_the_413(server: str, headers: tuple[str, ...]):
    more = [part for header in headers for part in ("-H", header)]

    said = await run(
        "curl", "-sS", "-w", " %{http_code}", "--data-binary", "@-", *more, f"{server}/payments", given=b" " * LARGE
    )

    assert said.endswith(b" 413")


async def test_aiohttp_reads_the_413_and_goes_on(api: Api):
    for _ in range(3):
        async with api.post("/payments", data=b" " * LARGE) as response:
            assert (response.status, (await response.json(content_type=None))["status"]) == (413, 413)
    await api.pay()


def by_python(address: str, path: str, body: Any, **headers: str) -> tuple[int, bytes]:
    """As `http.client`, urllib and requests do it: the whole body is sent before a byte is read."""
    where = urlsplit(address)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)
    chunked = not isinstance(body, bytes)
    if chunked:
        headers["Transfer-Encoding"] = "chunked"
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"} | headers, encode_chunked=chunked)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


async def test_python_reads_every_answer_that_is_given_before_its_body_was_read(server: str, key: str):
    ours, nobodys = {"Authorization": f"Bearer {key}"}, {"Authorization": "Bearer rk_0123456789ab_SECRET"}
    pieces = [b" " * 65536] * (LARGE // 65536)
    cases: list[tuple[int, str, Any, dict[str, str]]] = [
        (413, "/payments", b" " * LARGE, ours),
        (413, "/payments", iter(pieces), ours),
        (413, "/login", b" " * LARGE, {}),
        (401, "/payments/batch", b" " * LARGE, nobodys),
        (401, "/api/v1/push", iter(pieces), nobodys),
        (404, "/nowhere", b" " * LARGE, ours),
        (415, "/api/v1/push", b" " * LARGE, ours | {"Content-Encoding": "gzip"}),
        (400, "/payments", b" " * LARGE, {"Host": "a b"}),
        (431, "/payments", b" " * LARGE, {"X-Large": "x" * 70_000}),
    ]  # fmt: skip
    for expected, path, body, headers in cases:
        status, answer = await asyncio.to_thread(by_python, server, path, body, **headers)

        assert (status, json.loads(answer)["status"]) == (expected, expected), path


async def test_a_client_that_expects_100_continue_is_refused_before_it_sends_the_body(server: str, api: Api):
    head = POST + b"Authorization: Bearer " + api.key.encode() + b"\r\nExpect: 100-continue\r\n"

    refused = await all_of(server, head + b"Content-Length: %d\r\n\r\n" % LARGE)
    async with line(server) as (reader, writer), asyncio.timeout(5):
        writer.write(head + b"Content-Length: 12\r\n\r\n")
        go_on = await reader.readuntil(b"\r\n\r\n")
        writer.write(b'{"amount":1}')
        accepted = await reader.readuntil(b"\r\n\r\n")

    assert (status_of(refused), refused.count(b"HTTP/1.1 ")) == (413, 1)
    assert (status_of(go_on), status_of(accepted)) == (100, 202)


async def test_bytes_after_an_early_response_are_no_second_request(server: str):
    """It may be the rest of the first one's body: whoever wrote that must not ask in another's name."""
    head = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"

    async with line(server) as (reader, writer), asyncio.timeout(5):
        writer.write(head)
        first = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"x" * 1000 + GET + b"\r\n")
        rest = await reader.read()

    assert (status_of(first), b"connection: close" in first.lower()) == (404, True)
    assert b"HTTP/1.1" not in rest


async def test_an_answer_after_the_whole_body_leaves_the_connection_open(server: str):
    one = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"

    answer = await all_of(server, one + one + GET + b"\r\n")

    assert (answer.count(b"HTTP/1.1 404"), answer.count(b"HTTP/1.1 200")) == (2, 1)


@pytest.mark.parametrize(("limit", "value"), [("DROP_BYTES", 1_000_000), ("DROP_TIME", 0.2)])
async def test_an_unused_body_is_read_up_to_a_limit(server: str, monkeypatch, limit: str, value: float):
    monkeypatch.setattr(protocol, limit, value)
    ended = asyncio.Event()

    async with line(server) as (reader, writer):
        writer.write(POST + b"Content-Length: 1000000000\r\n\r\n")
        answer = await reader.read()  # its end is the server's half of the connection
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(10):
                while not ended.is_set():
                    writer.write(b" " * 65536)
                    await writer.drain()
                    await asyncio.sleep(0.001)

    assert status_of(answer) == 413


async def test_connections_that_were_answered_early_are_forgotten(server: str, monkeypatch):
    monkeypatch.setattr(protocol, "DROP_TIME", 0.1)
    before = len(asyncio.all_tasks())

    answers = await asyncio.gather(*(all_of(server, POST + b"Content-Length: 99999999\r\n\r\n") for _ in range(50)))

    assert {status_of(answer) for answer in answers} == {413}
    await eventually(lambda: len(asyncio.all_tasks()) <= before + 2)


# -- Content codings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "coding"),
    [
        ("/payments", "gzip"),
        ("/payments", "br"),
        ("/payments/batch", "deflate, identity"),
        ("/payments/{id}/refunds", "x-gzip"),
        ("/api/v1/push", "gzip"),
        ("/login", "gzip"),
    ],
)
async def test_a_body_with_a_content_encoding_is_415_with_the_accepted_encoding(api: Api, path: str, coding: str):
    headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
    async with aiohttp.ClientSession(api.address, headers={"Authorization": f"Bearer {api.key}"}) as session:
        # Handed over as pieces: the client leaves those as they are.
        async with session.post(
            path.format(id=uuid4()), data=pieces(gzip.compress(b"{}")), headers=headers
        ) as response:
            body = await response.json(content_type="application/problem+json")

    assert (response.status, response.headers["Accept-Encoding"]) == (415, "identity")
    assert body["type"] == "urn:registry:problem:unsupported-coding"


async def pieces(body: bytes) -> Any:
    yield body


async def test_the_content_encoding_identity_is_accepted(api: Api):
    async with api.post("/payments", json={"amount": 1}, headers={"Content-Encoding": "Identity"}) as response:
        assert response.status == 202
