"""The SSRF guard: internal addresses are never called, by any name, notation, redirect or DNS change."""

import asyncio

import pytest

from registry.errors import Invalid
from registry.http.client import BadAddress, Client, NotConnected
from registry.http.ssrf import NotOutside, Outside, checked, is_allowed, parted
from tests.registry.http_server import OK, Server, saying

INSIDE = [
    "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "::1", "fc00::1", "fd12:3456::1",
]  # fmt: skip
NEVER = [
    "0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.0.1", "100.64.0.1", "100.100.100.200", "100.127.255.255",
    "168.63.129.16", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9", "192.88.99.1", "224.0.0.1",
    "239.255.255.255", "240.0.0.1", "255.255.255.255", "::", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "fd00:ec2::254",
    "2001:db8::1", "2001::1", "2002:7f00:1::", "2002:a00:1::1", "64:ff9b:1::1", "100::1", "4000::1", "::7f00:1",
    "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe",
]  # fmt: skip
OUTSIDE = [
    "93.184.215.14",
    "1.1.1.1",
    "2606:4700:4700::1111",
    "::ffff:1.1.1.1",
    "64:ff9b::101:101",
    "172.32.0.1",
    "11.0.0.1",
]


@pytest.mark.parametrize("address", [*INSIDE, *NEVER, "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1"])
def test_private_addresses_are_not_allowed(address: str):
    assert not is_allowed(address, private=False)


@pytest.mark.parametrize("address", OUTSIDE)
def test_the_public_internet_is_allowed(address: str):
    assert is_allowed(address, private=False)


@pytest.mark.parametrize("address", [*INSIDE, "::ffff:127.0.0.1"])
def test_private_networks_are_allowed_by_the_setting(address: str):
    assert is_allowed(address, private=True)


@pytest.mark.parametrize("address", NEVER)
def test_metadata_and_tunnel_addresses_are_refused_even_then(address: str):
    assert not is_allowed(address, private=True)


# -- Names -----------------------------------------------------------------------------------------------------


@pytest.fixture
def outside():
    found = Outside(private=False)
    yield found
    found.close()


@pytest.mark.parametrize(
    "host", ["localhost", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "0", "[::1]", "::ffff:7f00:1", "169.254.43518"]
)
async def test_no_spelling_of_an_address_reaches_a_private_network(outside, host: str):
    with pytest.raises(NotOutside):
        await outside.resolve(host.strip("[]"), 80)


async def test_one_private_address_among_public_ones_is_refused(outside, monkeypatch):
    names(monkeypatch, ["1.1.1.1", "10.0.0.1"])

    with pytest.raises(NotOutside):
        await outside.resolve("shop.example", 443)


def names(monkeypatch, *answers: list[str]) -> list[str]:
    """The machine's resolver says the first of `answers`, then the next, the last for ever; what was asked."""
    asked: list[str] = []

    async def look_up(self: Outside, host: str, port: int) -> list[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    monkeypatch.setattr(Outside, "look_up", look_up)
    return asked


async def test_a_name_that_resolves_to_a_private_address_is_refused_when_it_is_registered(monkeypatch, settings):
    settings.WEBHOOK_ALLOW_PRIVATE = False
    names(monkeypatch, ["169.254.169.254"])

    with pytest.raises(Invalid) as refused:
        await checked("https://shop.example/hook", tls_only=True)

    assert refused.value.errors == [{"field": "url", "message": "shop.example is not a public address"}]


async def test_a_name_that_later_resolves_to_a_private_address_is_not_called(monkeypatch):
    """DNS rebinding: what was checked is what is connected to, and what is looked up again is checked again."""
    outside = Outside(private=False)
    asked = names(monkeypatch, ["1.1.1.1"], ["127.0.0.1"])
    await outside.resolve("shop.example", 80)

    async with (
        Server(saying(OK)) as server,
        Client(f"http://shop.example:{server.port}", resolve=outside.resolve) as client,
    ):
        with pytest.raises(NotConnected, match="is not a public address"):
            await client.request("POST", "/hook", b"{}", limit=2)

    outside.close()
    assert (server.accepted, len(asked)) == (0, 2)


async def test_the_connection_is_made_to_the_address_that_was_checked(monkeypatch):
    outside = Outside(private=True)
    asked = names(monkeypatch, ["127.0.0.1"])

    async with (
        Server(saying(OK)) as server,
        Client(f"http://a-name-that-no-resolver-knows.invalid:{server.port}", resolve=outside.resolve) as client,
    ):
        answer = await client.request("POST", "/hook", b"{}", limit=2)

    outside.close()
    assert answer.status == 200
    assert asked == ["a-name-that-no-resolver-knows.invalid"]
    assert b"Host: a-name-that-no-resolver-knows.invalid" in server.requests[0]


async def test_a_numeric_host_is_checked_too(outside):
    async with Server(saying(OK)) as server, Client(server.url, resolve=outside.resolve) as client:
        with pytest.raises(NotConnected, match="is not a public address"):
            await client.request("POST", "/hook", b"{}", limit=2)

    assert server.accepted == 0


async def test_a_resolver_that_does_not_answer_is_given_up(outside, monkeypatch):
    monkeypatch.setattr("registry.http.ssrf.LOOKUP_WITHIN", 0.01)
    never = asyncio.Event()

    async def look_up(self: Outside, host: str, port: int) -> list[str]:
        await never.wait()
        return []

    monkeypatch.setattr(Outside, "look_up", look_up)

    with pytest.raises(OSError):
        await outside.resolve("shop.example", 443)


async def test_headers_of_one_request_are_not_sent_with_the_next():
    async with Server(saying(OK)) as server, Client(server.url) as client:
        await client.request("POST", "/", b"1", limit=2, headers={"webhook-id": "msg_1"})
        await client.request("POST", "/", b"2", limit=2)

    assert b"webhook-id: msg_1\r\n" in server.requests[0]
    assert b"webhook-id" not in server.requests[1]


async def test_a_header_with_a_line_break_is_refused():
    async with Server(saying(OK)) as server, Client(server.url) as client:
        with pytest.raises(ValueError, match="not a header"):
            await client.request("POST", "/", b"1", limit=2, headers={"webhook-id": "1\r\nHost: elsewhere"})

    assert server.requests == []


# -- URLs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "origin", "target"),
    [
        ("https://shop.example/hook", "https://shop.example", "/hook"),
        ("https://shop.example", "https://shop.example", "/"),
        ("https://shop.example:8443/a/b?token=x&y=%20z", "https://shop.example:8443", "/a/b?token=x&y=%20z"),
        ("http://shop.example:80/a b".replace(" ", "%20"), "http://shop.example", "/a%20b"),
        ("https://bücher.example/straße?q=ü", "https://xn--bcher-kva.example", "/stra%C3%9Fe?q=%C3%BC"),
        ("https://[2606:4700::1]/x", "https://[2606:4700::1]", "/x"),
    ],
)
def test_a_receivers_url_is_an_origin_and_a_target(url: str, origin: str, target: str):
    assert parted(url, tls_only=False) == (origin, target)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("https://user:secret@shop.example/", "a user or password"),
        ("https://shop.example/#part", "no #"),
        ("ftp://shop.example/", "begins with http"),
        ("file:///etc/passwd", "begins with http"),
        ("gopher://shop.example/", "begins with http"),
        ("https:///hook", "not the name of a host"),
        ("https://shop.example:22/", "port 22 belongs"),
        ("https://shop.example:0/", "no port 0"),
        ("https://shop.example/a b", "no spaces"),
        ("https://shop.example/\r\nHost: x", "no spaces"),
        ("https://shop.example\\@127.0.0.1/", "a user or password"),
        ("https://" + "x" * 2000, "at most 2000"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_invalid_url_of_a_receiver_is_refused_with_an_explanation(url: str, complaint: str):
    with pytest.raises(BadAddress, match=complaint):
        parted(url, tls_only=False)


def test_the_password_in_an_address_is_not_repeated():
    with pytest.raises(BadAddress) as refused:
        parted("https://user:hunter2@shop.example/", tls_only=False)

    assert "hunter2" not in str(refused.value)


def test_a_live_tenants_url_is_https():
    with pytest.raises(BadAddress, match="begins with https"):
        parted("http://shop.example/hook", tls_only=True)
