"""Checks of ids that senders choose: values that cannot be unique are refused, because a second request with the same id
would be taken for a replay of the first."""

from typing import Final
from uuid import UUID

from registry.errors import Invalid

KEY_LENGTH: Final = 255  # characters of an Idempotency-Key
EMPTY: Final = (
    UUID(int=0),
    UUID(int=2**128 - 1),
)  # the nil and the max UUID (RFC 9562): placeholders for a missing id
# Characters of which texts of these UUIDs consist, with all that int() and UUID() read over.
_OF_EMPTY: Final = "0fF-{}urnid:_+xX \t\n\r\v\f\x1c\x1d\x1e\x1f"
# Texts that programs write for a missing value.
_NO_VALUE: Final = frozenset(("null", "undefined", "none", "nil", "nan", "[object object]"))
_LONGEST: Final = max(map(len, _NO_VALUE))


def is_empty(id: UUID | str) -> bool:
    """Whether it is the nil or the max UUID, in any notation."""
    if isinstance(id, str) and id.strip(_OF_EMPTY) and id.isascii():  # nearly all, and parsing costs ten times as much
        return False
    try:
        return (id if isinstance(id, UUID) else UUID(id)) in EMPTY
    except ValueError:
        return False


def is_no_value(text: str) -> bool:
    """Whether it is a word such as null or undefined."""
    text = text.strip()
    return len(text) <= _LONGEST and text.lower() in _NO_VALUE


def check_unique(field: str, id: UUID | str) -> None:
    """Raises Invalid (422) naming `field` for an id that stands for no value."""
    if is_empty(id):
        message = "is the nil or the max UUID, which stands for no id"
    elif isinstance(id, str) and is_no_value(id):
        message = f"is {id.strip()!r}, which stands for no id"
    else:
        return
    raise Invalid(f"{field} {message}", errors=[{"field": field, "message": message}])


def check_key(idempotency_key: str) -> None:
    """Raises Invalid (422) for an `Idempotency-Key` that is too long, not printable, or stands for no value."""
    if len(idempotency_key) > KEY_LENGTH or not idempotency_key.isprintable():
        message = f"wants at most {KEY_LENGTH} printable characters"
    elif is_empty(idempotency_key.strip()) or is_no_value(idempotency_key):
        message = "must be unique for each request"
    else:
        return
    raise Invalid(errors=[{"field": "Idempotency-Key", "message": message}])
