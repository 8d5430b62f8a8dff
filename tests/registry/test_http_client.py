"""The HTTP client against correct servers: every framing of a response, the pool, addresses, TLS."""

import asyncio
import datetime
import ipaddress
import ssl
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.http.client import Address, BadAddress, Client, NotConnected, NotSent
from tests.conftest import eventually
from tests.depth import deep
from tests.registry.http_server import OK, Server, hanging, in_pieces, saying

FRAMINGS = {
    "by its length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "in chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
    "in chunks, with a trailer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n",
    "after an interim answer": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "after early hints": b"HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
}
UNTIL_CLOSE = {
    "1.1": b"HTTP/1.1 200 OK\r\n\r\nhello",
    "1.0": b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello",
    "another coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello",
}


async def get(client: Client, limit: float = 5.0):
    return await client.request("GET", "/x", limit=limit)


# -- Framing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", FRAMINGS.values(), ids=FRAMINGS.keys())
async def test_an_answer_is_read_to_its_end_and_its_connection_used_again(answer):
    async with Server(saying(answer)) as server, Client(server.url) as client:
        answers = [await get(client) for _ in range(3)]

    assert [(a.status, a.body) for a in answers] == [(200, b"hello")] * 3
    assert server.accepted == 1


async def test_the_answer_to_head_ends_with_its_head_whatever_length_it_names():
    """A connection on which a body may still arrive is not used again."""
    answers = (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 404 No\r\n\r\n")
    found = []
    for answer in answers:
        async with Server(saying(answer)) as server, Client(server.url) as client:
            found += [await client.request("HEAD", "/x", limit=5.0) for _ in range(2)]
            assert (server.accepted, client.connections) == (2, 0)

    assert [(one.status, one.body) for one in found] == [(200, b"")] * 2 + [(404, b"")] * 2


@pytest.mark.parametrize("answer", FRAMINGS.values(), ids=FRAMINGS.keys())
async def test_an_answer_may_come_byte_by_byte(answer):
    async with Server(in_pieces(*(bytes([b]) for b in answer))) as server, Client(server.url) as client:
        answers = [await get(client) for _ in range(2)]

    assert [(a.status, a.body) for a in answers] == [(200, b"hello")] * 2
    assert server.accepted == 1


@pytest.mark.parametrize("answer", UNTIL_CLOSE.values(), ids=UNTIL_CLOSE.keys())
async def test_an_answer_without_length_ends_with_its_connection(answer):
    async with Server(saying(answer, then_close=True)) as server, Client(server.url) as client:
        answers = [await get(client) for _ in range(2)]

    assert [(a.status, a.body) for a in answers] == [(200, b"hello")] * 2
    assert server.accepted == 2


@pytest.mark.parametrize("status", [204, 304])
async def test_some_responses_have_no_body_whatever_their_headers(status):
    answer = f"HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\n".encode()

    async with Server(saying(answer)) as server, Client(server.url) as client:
        answers = [await get(client) for _ in range(2)]

    assert [(a.status, a.body) for a in answers] == [(status, b"")] * 2
    assert server.accepted == 1


@settings(max_examples=deep(20, 600), deadline=None)
@given(name=st.sampled_from(sorted(FRAMINGS)), cuts=st.sets(st.integers(1, 60)))
async def test_a_response_is_read_the_same_however_it_is_split(name, cuts):
    whole = FRAMINGS[name]
    ends = [0, *sorted(c for c in cuts if c < len(whole)), len(whole)]
    pieces = [whole[a:b] for a, b in pairwise(ends)]

    async with Server(in_pieces(*pieces)) as server, Client(server.url) as client:
        answer = await get(client)

    assert (answer.status, answer.body) == (200, b"hello")


async def test_headers_are_found_by_any_case_and_trailers_are_none():
    answer = b"HTTP/1.1 429 Wait\r\nrETRY-after: 7\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nRetry-After: 9\r\n\r\n"

    async with Server(saying(answer)) as server, Client(server.url) as client:
        answered = await get(client)

    assert (answered.header("Retry-After"), answered.header("Other")) == ("7", None)


@pytest.mark.parametrize("end", ["length", "chunks", "close"])
async def test_a_body_above_the_limit_is_cut_and_its_connection_given_up(end):
    body = b"y" * 100_000
    answers = {
        "length": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + body,
        "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n186A0\r\n" + body + b"\r\n0\r\n\r\n",
        "close": b"HTTP/1.1 200 OK\r\n\r\n" + body,
    }

    async with Server(saying(answers[end])) as server, Client(server.url, largest_body=1000) as client:
        cut = [await get(client) for _ in range(2)]
        left = client.connections

    assert {(a.status, a.body) for a in cut} == {(200, body[:1000])}
    assert (server.accepted, left) == (2, 0)


# -- What is sent --------------------------------------------------------------------------------------------------


async def test_a_request_has_the_necessary_headers_only():
    async with Server(saying(OK)) as server, Client(f"{server.url}/base/", headers={"User-Agent": "Me"}) as client:
        await client.request("POST", "/pay", b"{}", limit=5)

    assert server.requests == [
        f"POST /base/pay HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAccept-Encoding: identity\r\nUser-Agent: Me\r\n"
        "Content-Length: 2\r\n\r\n{}".encode()
    ]


async def test_a_redirect_is_an_answer_like_any_other():
    answer = b"HTTP/1.1 307 Elsewhere\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"

    async with Server(saying(answer)) as server, Client(server.url) as client:
        status = (await get(client)).status

    assert (status, len(server.requests)) == (307, 1)


@pytest.mark.parametrize("path", ["/a\r\nX: y", "/a b", "/a\n", "/é", "no-slash", "/a\x00"])
async def test_a_path_cannot_inject_anything_into_the_request(path):
    async with Server(saying(OK)) as server, Client(server.url) as client:
        with pytest.raises(NotSent):
            await client.request("GET", path, limit=5)

    assert server.accepted == 0


@pytest.mark.parametrize("header", [("X", "a\r\nY: b"), ("X\r\nY", "b"), ("X", "é\n"), ("", "x"), ("A:", "x")])
async def test_a_header_cannot_inject_anything_into_the_request(header):
    with pytest.raises(ValueError, match="not a header"):
        Client("http://127.0.0.1:1", headers=dict([header]))


# -- Addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://pay.example", Address(False, "pay.example", 80, "pay.example", "")),
        ("HTTPS://Pay.Example:8443/v1/", Address(True, "pay.example", 8443, "pay.example:8443", "/v1")),
        ("https://pay.example:443", Address(True, "pay.example", 443, "pay.example", "")),
        ("http://[::1]:80", Address(False, "::1", 80, "[::1]", "")),
        ("http://bücher.example/ü", Address(False, "xn--bcher-kva.example", 80, "xn--bcher-kva.example", "/%C3%BC")),
        ("http://pay_1:9", Address(False, "pay_1", 9, "pay_1:9", "")),
    ],
)
def test_addresses_are_parsed(url, expected):
    assert Address.parse(url) == expected


@pytest.mark.parametrize(
    "url",
    ["", "pay.example", "ftp://pay.example", "http://", "http://:80", "http://u:p@pay.example", "http://u@pay.example",
     "http://pay.example:0", "http://pay.example:99999", "http://pay.example:x", "http://pay.example/?a=b",
     "http://pay.example/#a", "http://pay.example/\r\nX: y", "http://pay .example", "http://pay\texample", "http://[::1",
     "http://a,b", "http://" + "ü" * 70],
)  # fmt: skip
def test_an_invalid_address_is_refused_with_an_explanation(url):
    with pytest.raises(BadAddress, match=r"\w+ \w+") as refused:
        Address.parse(url)

    assert "u:p" not in str(refused.value)


@pytest.mark.parametrize("host", ["localhost", "::1"])
async def test_names_and_addresses_of_both_kinds_are_reached(host):
    async with Server(saying(OK), host=host) as server, Client(server.url) as client:
        answers = await asyncio.gather(*(get(client) for _ in range(20)))

    assert {a.status for a in answers} == {200}


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://nowhere.invalid"])
async def test_a_failed_connection_means_that_nothing_was_sent(url):
    async with Client(url) as client:
        with pytest.raises(NotConnected):
            await get(client)

        assert client.connections == 0


# -- The pool --------------------------------------------------------------------------------------------------------


async def test_a_thousand_requests_share_few_connections_and_leave_none_behind():
    async with Server(saying(OK)) as server:
        async with Client(server.url, connections=7) as client:
            answers = await asyncio.gather(*(client.request("POST", "/x", b"{}", limit=20) for _ in range(1000)))
            held = client.connections
        await eventually(lambda: not server.open)

    assert {a.body for a in answers} == {b"hi"}
    assert (len(server.requests), server.accepted, held, client.connections) == (1000, 7, 7, 0)


async def test_the_connection_used_last_is_used_next_and_the_others_expire():
    async with Server(saying(OK)) as server, Client(server.url, keep_alive=0.3) as client:
        await asyncio.gather(*(get(client) for _ in range(5)))
        many = client.connections

        async def only_one_is_left():
            await get(client)
            return client.connections == 1

        await eventually(only_one_is_left)
        await eventually(lambda: client.connections == 0)

    assert (many, server.accepted) == (5, 5)


async def test_a_connection_that_the_server_will_close_gets_no_second_request():
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"

    async with Server(saying(answer)) as server, Client(server.url) as client:
        for _ in range(3):
            await get(client)

    assert (server.accepted, len(server.requests)) == (3, 3)


async def test_closing_the_client_cancels_running_and_waiting_requests():
    async with Server(hanging) as server:
        async with Client(server.url, connections=1) as client:
            calls = [asyncio.create_task(get(client)) for _ in range(3)]
            await eventually(lambda: server.requests)
        ends = await asyncio.gather(*calls, return_exceptions=True)
        await eventually(lambda: not server.open)
        with pytest.raises(NotConnected):
            await get(client)

    assert [type(e).__name__ for e in ends] == ["Disconnected", "NotConnected", "NotConnected"]


# -- TLS ---------------------------------------------------------------------------------------------------------------


def certificate(folder: Path, name: x509.GeneralName) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server shows for `name`, and a caller that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.load_cert_chain(pem)
    return shown, ssl.create_default_context(cadata=made.public_bytes(serialization.Encoding.PEM).decode())


LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


async def test_tls_carries_requests_over_kept_connections(tmp_path):
    shown, trusting = certificate(tmp_path, LOOPBACK)

    async with Server(saying(OK), tls=shown) as server, Client(server.url, tls=trusting) as client:
        answers = [await get(client) for _ in range(3)]

    assert [a.body for a in answers] == [b"hi"] * 3
    assert server.accepted == 1


async def test_an_answer_without_length_ends_with_its_connection_over_tls_too(tmp_path):
    shown, trusting = certificate(tmp_path, LOOPBACK)

    async with Server(saying(UNTIL_CLOSE["1.1"], then_close=True), tls=shown) as server:
        async with Client(server.url, tls=trusting) as client:
            answer = await get(client)

    assert answer.body == b"hello"


async def test_an_untrusted_certificate_ends_the_connection_before_anything_is_sent(tmp_path):
    shown, _ = certificate(tmp_path, LOOPBACK)

    async with Server(saying(OK), tls=shown) as server, Client(server.url) as client:
        with pytest.raises(NotConnected, match="CERTIFICATE_VERIFY_FAILED"):
            await get(client)

        assert (server.requests, client.connections) == ([], 0)


async def test_a_certificate_of_another_name_ends_the_connection_before_anything_is_sent(tmp_path):
    shown, trusting = certificate(tmp_path, x509.DNSName("other.example"))

    async with Server(saying(OK), tls=shown) as server, Client(server.url, tls=trusting) as client:
        with pytest.raises(NotConnected, match="CERTIFICATE_VERIFY_FAILED"):
            await get(client)

        assert (server.requests, client.connections) == ([], 0)
