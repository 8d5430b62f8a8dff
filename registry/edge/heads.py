"""Checks of a request's head that do not depend on its target (RFC 9110, RFC 9112).

registry.edge.protocol limits its size while it arrives; other servers have limits of their own.
"""

import re

from registry.errors import HeadTooLarge, InvalidRequest, Problem, UnknownTransferCoding, UnsupportedCoding

LIMIT = 64 * 1024  # bytes of a request line with its headers; of trailers and chunk extensions, the same again
FIELDS = 200  # headers of a request; as many trailers
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{0,5})?\Z")  # a name or an address, and a port


def value_of(scope: dict, name: bytes) -> str:
    """The first value of a header, or an empty text."""
    return next((value.decode("latin1") for key, value in scope["headers"] if key == name), "")


def joined(scope: dict, name: bytes) -> str:
    """All values of a header, as Django joins them."""
    return b",".join([value for key, value in scope["headers"] if key == name]).decode("latin1")


def fault_of(scope: dict) -> Problem | None:
    """The reason to refuse this request: its fields, its Host or its transfer coding. Host is optional in HTTP/1.0 only."""
    version, hosts, codings = scope.get("http_version", "1.1"), [], []
    for name, value in scope["headers"]:
        if name == b"host":
            hosts.append(value)
        elif name == b"transfer-encoding":
            codings += tokens(value)
    if version not in ("1.0", "1.1", "2"):  # Daphne writes HTTP/2 as 2
        return InvalidRequest("this service speaks HTTP/1.1")
    if len(scope["headers"]) > FIELDS:
        return HeadTooLarge(f"a request has at most {FIELDS} header fields")
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        return InvalidRequest("a request has one Host header")
    if hosts and not HOST.match(hosts[0]):
        return InvalidRequest("Host wants a name or an address, and a port where it is not the usual one")
    if codings and version == "1.0":
        return InvalidRequest("HTTP/1.0 has no Transfer-Encoding")
    if codings and codings != [b"chunked"]:
        return UnknownTransferCoding("of transfer codings only chunked is understood")
    return None


def refuse_coding(content_encoding: bytes) -> None:
    """Raises UnsupportedCoding (415) for a body that is compressed."""
    if any(coding != b"identity" for coding in tokens(content_encoding)):
        raise UnsupportedCoding("send the body without Content-Encoding", headers={"Accept-Encoding": "identity"})


def tokens(value: bytes) -> list[bytes]:
    """The items of a header that is a list, in lower case."""
    return [token for item in value.lower().split(b",") if (token := item.strip())]
