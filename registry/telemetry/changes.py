"""Log lines of changes of state: one per payment, refund, inbound event, delivery or job that changed.

Changes come in batches of hundreds, so that a batch is one log record with a line for each change: 3 µs of processor time per line,
where a call of the logger takes 200 (docs/decisions/045). LOG_CHANGES=false switches them off.
"""

import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec

from registry.redaction import redact_text

log = logging.getLogger(__name__)

# How a line begins that was made here, and so has no secrets: `up` need not search it again, which takes 200 µs.
PREFIX = f'{{"logger":"{__name__}",'.encode()

LONGEST_WHY = 300  # characters

_encode = msgspec.json.Encoder().encode
_without_secrets = lru_cache(4096)(redact_text)  # reasons are few; most name a state, a code and a processor


class ChangeLine(msgspec.Struct, omit_defaults=True, kw_only=True, rename={"was": "from"}):
    """A change of state. What is empty is left out of the line. `ms`: of the attempt."""

    event: str
    tenant: int
    was: str = ""  # empty: it is new
    to: str
    why: str = ""
    payment: UUID | str | None = None  # correlation id
    refund: UUID | None = None
    inbound: str = ""  # the processor's id of an event
    delivery: str = ""  # id of the message
    subject: UUID | None = None  # what a delivery is about
    endpoint: UUID | None = None
    job: UUID | None = None
    kind: str = ""
    type: str = ""
    attempt: int = 0
    processor: str = ""
    ms: int | None = None
    request_id: str = ""


def change(what: str, was: str, to: str, *, tenant: int, why: str = "", **fields: Any) -> ChangeLine:
    """The line of a change. `what`: such as "payment"; `was`: empty for what is new.

    Only `why` may hold text from outside: it is redacted, then shortened.
    """
    why = _without_secrets(why)[:LONGEST_WHY]
    return ChangeLine(event=f"{what} {to}", tenant=tenant, was=was, to=to, why=why, **fields)


def record(changes: Iterable[ChangeLine | None]) -> None:
    """Log changes that are committed. `changes` is not read where they are not logged."""
    if log.isEnabledFor(logging.INFO) and (lines := [line for line in changes if line]):
        log.info("%d changes", len(lines), extra={"changes": lines})


def formatted(record: logging.LogRecord, *, readable: bool, origin: Mapping[str, str] | None = None) -> str | None:
    """The lines of a record that `record` made, without the end of the last one; None for other records. `origin`: fields of each
    line, such as the host."""
    changes: list[ChangeLine] | None = getattr(record, "changes", None)
    if changes is None or record.name != __name__:
        return None
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    if readable:
        return "\n".join(_readable(at, line) for line in changes)
    said = "".join(f'"{name}":"{value}",' for name, value in (origin or {}).items())
    head = PREFIX + f'"level":"info",{said}"timestamp":"{at}",'.encode()
    return b"\n".join([head + _encode(line)[1:] for line in changes]).decode()


def _readable(at: str, line: ChangeLine) -> str:
    fields = msgspec.json.decode(_encode(line))
    event = fields.pop("event")
    rest = " ".join(f"{name}={value}" for name, value in fields.items())
    return f"{at} [info     ] {event:<30} {rest}".replace("\n", " ")
