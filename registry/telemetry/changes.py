"""Log lines of changes of state: one per payment, refund, inbound event, delivery or job that changed.

Changes come in batches of hundreds, so that a batch is one log record with a line for each change: 3 µs of processor time per line,
where a call of the logger takes 200 (docs/decisions/045). LOG_CHANGES=false switches them off.
"""

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from registry.redaction import redact_text

log = logging.getLogger(__name__)

# How a line begins that was made here, and so has no secrets: `up` need not search it again, which takes 200 µs.
PREFIX = f'{{"logger":"{__name__}",'.encode()

LONGEST_WHY = 300  # characters
type Line = dict[str, Any]

_encode = msgspec.json.Encoder().encode
_without_secrets = lru_cache(4096)(redact_text)  # reasons are few; most name a state, a code and a processor


def change(what: str, was: str, to: str, *, tenant: int, why: str = "", **fields: Any) -> Line:
    """The fields of a line. `what`: such as "payment"; `was`: empty for what is new; `fields`: ids, attempt, processor, request_id.

    Only `why` may hold text from outside: it is redacted, then shortened. Fields that are None or empty are left out.
    """
    line = {
        "event": f"{what} {to}",
        "tenant": tenant,
        "from": was,
        "to": to,
        "why": _without_secrets(why)[:LONGEST_WHY],
        **fields,
    }
    return {name: value for name, value in line.items() if value is not None and value != ""}


def record(changes: Iterable[Line | None]) -> None:
    """Log changes that are committed. `changes` is not read where they are not logged."""
    if log.isEnabledFor(logging.INFO) and (lines := [line for line in changes if line]):
        log.info("%d changes", len(lines), extra={"changes": lines})


def formatted(record: logging.LogRecord, *, readable: bool) -> str | None:
    """The lines of a record that `record` made, without the end of the last one; None for other records."""
    changes: list[Line] | None = getattr(record, "changes", None)
    if changes is None or record.name != __name__:
        return None
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    if readable:
        return "\n".join(_readable(at, line) for line in changes)
    head = {"logger": __name__, "level": "info", "timestamp": at}
    return b"\n".join([_encode(head | line) for line in changes]).decode()


def _readable(at: str, line: Line) -> str:
    rest = " ".join(f"{name}={value}" for name, value in line.items() if name != "event")
    return f"{at} [info     ] {line['event']:<30} {rest}"
