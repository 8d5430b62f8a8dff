"""Guard against server-side request forgery: which of the addresses that tenants name are called at all.

A tenant that could make us call any address would see our own network with our eyes: databases without a password, the
machine's metadata with its credentials. So a name is resolved here, every address it leads to is looked at, and the
connection is made to one of these very addresses: a name that leads elsewhere a moment later changes nothing.
"""

import asyncio
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, urlsplit

from django.conf import settings

from registry.errors import Invalid
from registry.http.client import Address, BadAddress

LONGEST_URL = 2000  # characters
LOOKUPS = 64  # threads: each slow look-up blocks one, and must not delay the others
LOOKUP_WITHIN = 5.0  # seconds
OWN_PORTS = 1024  # below that only 80 and 443: mail and name servers also take lines that look like HTTP

type IP = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolved = list[str]

NEVER = [
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "100.100.100.200/32",
        "fd00:ec2::/32", "fe80::/10", "2002::/16", "2001::/23", "64:ff9b:1::/48",
    )
]  # fmt: skip
"""Networks that never hold a receiver: this host by another name, link-local with the clouds' metadata (169.254.169.254, and its other homes
at Azure, Alibaba, Oracle and AWS over IPv6), and tunnels to an embedded IPv4 address (6to4, Teredo)."""
CARRIED = [
    ipaddress.IPv6Network("::ffff:0:0/96"),
    ipaddress.IPv6Network("64:ff9b::/96"),
]  # an IPv4 address in the last 32 bits
GLOBAL = ipaddress.IPv6Network("2000::/3")  # all addresses assigned so far
INSIDE = [
    ipaddress.ip_network(text)
    for text in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
]  # allowed by WEBHOOK_ALLOW_PRIVATE


class NotOutside(BadAddress):
    """This address is not on the public internet."""


def is_allowed(text: str, *, private: bool) -> bool:
    """Whether we connect to this IP address; `private`: to loopback and private networks too."""
    ip = _plain(ipaddress.ip_address(text.partition("%")[0]))
    if any(ip in network for network in NEVER if network.version == ip.version):
        return False
    if any(ip in network for network in INSIDE if network.version == ip.version):
        return private
    if ip.is_multicast or ip.is_reserved or ip.is_unspecified or not ip.is_global:
        return False
    return ip.version == 4 or ip in GLOBAL


def _plain(ip: IP) -> IP:
    """The IPv4 address embedded in an IPv6 address, such as ::ffff:10.0.0.1."""
    if isinstance(ip, ipaddress.IPv6Address) and any(ip in network for network in CARRIED):
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip


class Outside:
    """Resolves host names and refuses addresses that are not on the public internet. `close` ends its threads."""

    def __init__(self, *, private: bool | None = None) -> None:
        self.private = settings.WEBHOOK_ALLOW_PRIVATE if private is None else private
        self._threads = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="outside")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def resolve(self, host: str, port: int) -> Resolved:
        """The IP addresses of `host`. Raises NotOutside if one of them is not allowed, OSError if there are none."""
        async with asyncio.timeout(LOOKUP_WITHIN):
            found = await self.look_up(host, port)
        if not all(is_allowed(address, private=self.private) for address in found):
            raise NotOutside(f"{host[:100]} is not a public address")
        return found

    async def look_up(self, host: str, port: int) -> Resolved:
        """Ask the machine's resolver. It accepts all spellings of numbers: 127.1 and 0x7f000001 are 127.0.0.1."""
        loop = asyncio.get_running_loop()
        entries = await loop.run_in_executor(self._threads, _getaddrinfo, host, port)
        return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in entries))


def _getaddrinfo(host: str, port: int) -> list[tuple]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


# -- The URL itself ----------------------------------------------------------------------------------------


def parted(url: str, *, tls_only: bool) -> tuple[str, str]:
    """Split a receiver's URL into origin (scheme, host, port) and request target. Raises BadAddress."""
    if len(url) > LONGEST_URL:
        raise BadAddress(f"an address has at most {LONGEST_URL} characters")
    if "#" in url:
        raise BadAddress("an address for deliveries has no #")
    before, mark, query = url.partition("?")
    address = Address.parse(before)
    if tls_only and not address.tls:
        raise BadAddress("a live tenant's address begins with https://")
    if address.port < OWN_PORTS and address.port not in (80, 443):
        raise BadAddress(f"port {address.port} belongs to other services; 80, 443 and those from {OWN_PORTS} on do")
    path = quote(urlsplit(before).path or "/", safe="/%:@!$&'()*+,;=~-._")
    return f"{'https' if address.tls else 'http'}://{address.authority}", path + mark + quote(query, safe=_QUERY)


_QUERY = "/%:@!$&'()*+,;=~-._?[]"


async def checked(url: str, *, tls_only: bool) -> None:
    """Check that deliveries to the URL are possible now. Raises Invalid (422) naming `url`."""
    outside = Outside()
    try:
        fault = await fault_of(url, outside, tls_only=tls_only)
    finally:
        outside.close()
    if fault:
        raise Invalid("deliveries cannot be sent to this address", errors=[{"field": "url", "message": fault}])


async def fault_of(url: str, outside: Outside, *, tls_only: bool) -> str:
    """Why nothing can be sent to the URL now; empty if it can."""
    try:
        origin, _ = parted(url, tls_only=tls_only)
        address = Address.parse(origin)
        await outside.resolve(address.host, address.port)
    except BadAddress as error:
        return str(error)
    except (OSError, UnicodeError):  # a time-out is an OSError too
        return "this host name does not resolve; is it spelled correctly?"
    return ""
