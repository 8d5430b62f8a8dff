"""The messages of the service's websockets (docs/api.md, "Live updates")."""

from typing import ClassVar, Protocol

import msgspec

from registry_client._responses import decode_bytes

PING = '{"type":"ping"}'


class Change(Protocol):
    """A live event."""

    kind: ClassVar[str]  # the `type` of its message

    @property
    def sequence(self) -> int: ...


class Envelope(msgspec.Struct, frozen=True):
    """What all messages of the service have."""

    type: str = ""


def type_of(text: str) -> str:
    """The type of a message; a reader ignores those that it does not know."""
    return decode_bytes(text, Envelope).type


def resume(after: int) -> str:
    return f'{{"type":"resume","after":{after}}}'
