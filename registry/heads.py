"""What is wrong with a request's head, whatever it asks for (RFC 9110, RFC 9112). Its size is limited in registry.protocol."""

import re

from registry.errors import InvalidRequest, Problem, UnknownTransferCoding, UnsupportedCoding

HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{0,5})?\Z")  # a name or an address, and a port

type Headers = list[tuple[bytes, bytes]]


def fault_of(scope: dict) -> Problem | None:
    """Why nobody may answer this request: its Host or its transfer coding. Host is optional in HTTP/1.0 only."""
    version, hosts = scope.get("http_version", "1.1"), values(scope["headers"], b"host")
    if version not in ("1.0", "1.1", "2"):  # 2 is what Daphne says of HTTP/2
        return InvalidRequest("this service speaks HTTP/1.1")
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        return InvalidRequest("a request has one Host header")
    if hosts and not HOST.match(hosts[0]):
        return InvalidRequest("Host wants a name or an address, and a port where it is not the usual one")
    codings = tokens(scope["headers"], b"transfer-encoding")
    if codings and version == "1.0":
        return InvalidRequest("HTTP/1.0 has no Transfer-Encoding")
    if codings and codings != [b"chunked"]:
        return UnknownTransferCoding("of transfer codings only chunked is understood")
    return None


def refuse_coded_body(scope: dict) -> None:
    """Raises UnsupportedCoding (415) for a body that is compressed."""
    if any(coding != b"identity" for coding in tokens(scope["headers"], b"content-encoding")):
        raise UnsupportedCoding("send the body without Content-Encoding", headers={"Accept-Encoding": "identity"})


def values(headers: Headers, wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name == wanted]


def tokens(headers: Headers, wanted: bytes) -> list[bytes]:
    """The items of a header that is a list, in lower case."""
    found = b",".join(values(headers, wanted))
    return [token for item in found.lower().split(b",") if (token := item.strip())] if found else []
