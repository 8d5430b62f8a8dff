"""Secret fields of a job's input: encrypted at rest, and shown as dots."""

from typing import Any

import msgspec

from queueing.jobs.decisions import JobClaim
from queueing.jobs.kinds import Kind
from registry.tenants import encryption

DOTS = "•••"  # in place of a secret value


def place(tenant_id: int, uuid: object) -> str:
    """The context that the secrets of a job are encrypted with."""
    return f"job {tenant_id} {uuid}"


def divided(kind: Kind, content: bytes, *, place: str) -> tuple[bytes, bytes]:
    """The input as it is stored and shown, and its encrypted secrets; empty where it has none."""
    given: dict[str, Any] = msgspec.json.decode(content)
    secret = {name: given[name] for name in kind.secret if given.get(name)}
    if not secret:
        return content, b""
    shown = {name: _dotted(value) if name in secret else value for name, value in given.items()}
    return msgspec.json.encode(shown), encryption.seal(secret, place=place)


def _dotted(value: Any) -> Any:
    return dict.fromkeys(value, DOTS) if isinstance(value, dict) else DOTS


def moved(sealed: bytes | None, *, source: str, target: str) -> bytes:
    """The same secrets, encrypted for another place. What no key can decrypt stays as it is: then the job fails and says so."""
    if not sealed:
        return b""
    try:
        return encryption.seal(encryption.unseal(sealed, place=source), place=target)
    except encryption.Sealed:
        return bytes(sealed)


def whole(claim: JobClaim) -> bytes:
    """The input with its secrets. Raises Sealed (500) if no key can decrypt them."""
    if claim.sealed is None:
        return claim.input.encode()
    secret = encryption.unseal(claim.sealed, place=place(claim.tenant_id, claim.uuid))
    return msgspec.json.encode(msgspec.json.decode(claim.input) | secret)
