"""Forwarded headers: trusted from the proxies in TRUSTED_PROXIES, and removed otherwise."""

from io import BytesIO
from ipaddress import ip_network
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIRequest
from hypothesis import given
from hypothesis import strategies as st

from registry.edge import proxies

PROXY, INNER, CLIENT = "10.0.0.1", "10.0.0.2", "203.0.113.7"


@pytest.fixture(autouse=True)
def _trusted(settings: Any) -> None:
    settings.TRUSTED_PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::1/128"))


def seen(peer: str | None = PROXY, kind: str = "http", **headers: str | list[str]) -> dict:
    """What is left of a request from `peer` once its headers were believed, or not."""
    given_: list[tuple[bytes, bytes]] = [(b"host", b"inside.example"), (b"accept", b"*/*")]
    for name, said in headers.items():
        texts = said if isinstance(said, list) else [said]
        given_ += [(name.replace("_", "-").encode(), text.encode("latin1")) for text in texts]
    scheme = "ws" if kind == "websocket" else "http"
    scope = {"type": kind, "client": (peer, 4711) if peer else None, "scheme": scheme, "headers": given_}
    proxies.believe(scope)
    return scope


def address(scope: dict) -> str:
    return scope["client"][0]


def host(scope: dict) -> bytes:
    return dict(scope["headers"])[b"host"]


EVERYTHING = {
    "x_forwarded_for": CLIENT,
    "x_forwarded_proto": "https",
    "x_forwarded_host": "pay.example.com",
    "forwarded": f"for={CLIENT};proto=https;host=pay.example.com",
    "x_real_ip": CLIENT,
    "x_forwarded_port": "443",
}


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", CLIENT, "11.0.0.1", None])
def test_forwarding_headers_of_untrusted_proxies_are_ignored(peer: str | None):
    scope = seen(peer, **EVERYTHING)

    assert scope["client"] == ((peer, 4711) if peer else None)
    assert (scope["scheme"], host(scope)) == ("http", b"inside.example")
    assert {name for name, _ in scope["headers"]} == {b"host", b"accept"}


def test_no_proxy_is_trusted_unless_the_setting_names_it(settings):
    settings.TRUSTED_PROXIES = ()

    assert address(seen("127.0.0.1", **EVERYTHING)) == "127.0.0.1"


@pytest.mark.parametrize("peer", [PROXY, "fd00::1", f"::ffff:{PROXY}"])
def test_a_trusted_proxy_sets_address_scheme_and_host_and_its_headers_are_removed(peer: str):
    scope = seen(peer, **EVERYTHING)

    assert (address(scope), scope["scheme"], host(scope)) == (CLIENT, "https", b"pay.example.com")
    assert {name for name, _ in scope["headers"]} == {b"host", b"accept"}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (CLIENT, CLIENT),
        (f"1.1.1.1, {CLIENT}", CLIENT),
        (f"1.1.1.1, {CLIENT}, {INNER}", CLIENT),
        (["1.1.1.1", CLIENT], CLIENT),
        (f"{INNER}, {CLIENT}", CLIENT),
        (f"{PROXY}, {INNER}", PROXY),
        (f"{CLIENT}:4711", CLIENT),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
        (f"::ffff:{CLIENT}", CLIENT),
        ("fe80::1%eth0", "fe80::1"),
        (f"{CLIENT}, unknown", PROXY),
        (f"unknown, {INNER}", INNER),
        ("", PROXY),
        (",", PROXY),
        ("<script>", PROXY),
    ],
)
def test_the_right_most_address_that_is_no_proxy_is_the_client(said: str | list[str], expected: str):
    assert address(seen(x_forwarded_for=said)) == expected


def test_forwarded_counts_where_a_proxy_sends_nothing_else():
    scope = seen(forwarded=['for=1.1.1.1;proto=http, For="[2001:db8::7]:80";Proto=https;Host="pay.example.com"'])
    both = seen(forwarded="for=1.1.1.1", x_forwarded_for=CLIENT)

    assert (address(scope), scope["scheme"], host(scope)) == ("2001:db8::7", "https", b"pay.example.com")
    assert address(both) == CLIENT


def test_scheme_and_host_are_those_of_the_hop_that_named_the_client():
    """A visitor may have sent the first ones; the second proxy was called by the first, over plain HTTP."""
    scope = seen(x_forwarded_for=f"1.1.1.1, {CLIENT}, {INNER}", x_forwarded_proto="http, https, http")
    alone = seen(
        x_forwarded_for=f"1.1.1.1, {CLIENT}", x_forwarded_proto="https", x_forwarded_host="a.example, b.example"
    )

    assert (address(scope), scope["scheme"]) == (CLIENT, "https")
    assert (alone["scheme"], host(alone)) == ("https", b"b.example")


@pytest.mark.parametrize(("said", "expected"), [("https", "wss"), ("wss", "wss"), ("http", "ws"), ("gopher", "ws")])
def test_a_websocket_has_a_scheme_of_its_own(said: str, expected: str):
    assert seen(kind="websocket", x_forwarded_proto=said)["scheme"] == expected


@pytest.mark.parametrize(("peer", "expected"), [(PROXY, (CLIENT, True)), ("127.0.0.1", ("127.0.0.1", False))])
def test_django_sees_only_the_trusted_values(peer: str, expected: tuple[str, bool]):
    """Sign-in limits count by this address; redirects to https and what a form's origin is compared with, by this scheme."""
    scope = seen(peer, **EVERYTHING) | {"method": "GET", "path": "/", "query_string": b""}

    request = ASGIRequest(scope, BytesIO())

    assert (request.META["REMOTE_ADDR"], request.is_secure()) == expected
    assert not [name for name in request.META if "FORWARDED" in name or "REAL_IP" in name]


_hops = st.lists(
    st.one_of(st.ip_addresses().map(str), st.text(st.characters(codec="latin-1"), max_size=20)), max_size=5
)


@given(_hops)
def test_forwarding_headers_of_the_visitor_before_those_of_the_proxy_are_ignored(forged: list[str]):
    assert address(seen(x_forwarded_for=[*forged, CLIENT])) == CLIENT
    assert address(seen(forwarded=[*forged, f"for={CLIENT}"])) == CLIENT
