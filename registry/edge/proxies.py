"""Trusted proxies (TRUSTED_PROXIES): the client's address, scheme and host as they report them.

The application never sees these headers: `believe` puts trusted values into the scope and removes all of the headers.
"""

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

from django.conf import settings

HEADERS = frozenset(
    {b"forwarded", b"x-real-ip", b"x-forwarded"}
    | {b"x-forwarded-" + name for name in (b"for", b"proto", b"host", b"port", b"scheme", b"ssl", b"server", b"prefix")}
)

type Networks = tuple[IPv4Network | IPv6Network, ...]


class Forwarded(NamedTuple):
    """The values of the headers, the nearest hop last. A list may be empty, or shorter than the others."""

    addresses: list[str]
    schemes: list[str]
    hosts: list[str]


def believe(scope: dict) -> None:
    """Put the client's address, scheme and host into `scope` if a trusted proxy names them, and remove the headers.

    The client is the right-most address that is no trusted proxy: anybody may have written what stands left of it.
    """
    given = [header for header in scope["headers"] if header[0] in HEADERS]
    if not given:
        return
    scope["headers"] = [header for header in scope["headers"] if header[0] not in HEADERS]
    peer, trusted = scope.get("client"), settings.TRUSTED_PROXIES
    if not peer or not is_trusted(peer[0], trusted):
        return
    said = _said(given)
    place = len(said.addresses)
    client = peer[0]
    while place and is_trusted(client, trusted) and (address := _address(said.addresses[place - 1])):
        place, client = place - 1, address
    if client != peer[0]:
        scope["client"] = (client, 0)
    if (scheme := _beside(said.schemes, said.addresses, place).lower()) in ("http", "https", "ws", "wss"):
        secure = scheme in ("https", "wss")
        plain = "ws" if scope["type"] == "websocket" else "http"
        scope["scheme"] = plain + "s" * secure
    if host := _beside(said.hosts, said.addresses, place):
        named = (b"host", host.encode("latin1"))
        scope["headers"] = [named if name == b"host" else (name, value) for name, value in scope["headers"]]


@lru_cache(1024)
def is_trusted(address: str, networks: Networks) -> bool:
    try:
        ip = plain(ip_address(address))
    except ValueError:
        return False
    return any(ip in network for network in networks)


def plain(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address of a client that a dual-stack socket reports as ::ffff:10.0.0.1."""
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


def _said(given: list[tuple[bytes, bytes]]) -> Forwarded:
    """X-Forwarded-*, or Forwarded (RFC 7239) where a proxy sends only that."""
    addresses, schemes, hosts = (_list(given, b"x-forwarded-" + name) for name in (b"for", b"proto", b"host"))
    if addresses or schemes or hosts:
        return Forwarded(addresses, schemes, hosts)
    hops = [_pairs(hop) for hop in _list(given, b"forwarded")]
    return Forwarded(*([hop.get(name, "") for hop in hops] for name in ("for", "proto", "host")))


def _list(given: list[tuple[bytes, bytes]], wanted: bytes) -> list[str]:
    text = b",".join(value for name, value in given if name == wanted).decode("latin1")
    return [item.strip() for item in text.split(",")] if text else []


def _pairs(hop: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in hop.split(";"))
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}


def _address(text: str) -> str:
    """The address without brackets, port and zone; empty for other texts (`unknown`, `_hidden`)."""
    text = text.strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(plain(ip_address(text.partition("%")[0])))
    except ValueError:
        return ""


def _beside(said: list[str], addresses: list[str], place: int) -> str:
    """The value of the hop that named the client; where the lists have different lengths, that of the nearest hop."""
    if not said:
        return ""
    return said[place] if len(said) == len(addresses) and place < len(said) else said[-1]
