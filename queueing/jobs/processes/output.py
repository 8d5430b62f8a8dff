"""Output of a job's process in the worker's log: without secrets, with the job's id, and bounded in size."""

import asyncio
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import msgspec

from queueing.jobs.kinds import KINDS, Kind
from queueing.jobs.processes.wire import Assignment, LogLine
from registry.redaction import HIDDEN, redact, redact_text

log = logging.getLogger(__name__)

LINES_LIMIT = 1000  # lines of one attempt
OUTPUT_LIMIT = 256 * 1024  # characters of one attempt
LINE_LIMIT = 8 * 1024  # characters of one line; the rest of it is dropped
CLEANED = 2 * LINE_LIMIT  # bytes of a line that are searched for secrets before it is cut, lest a part of one is left
CHUNK = 64 * 1024  # bytes of one read
LINES_AT_ONCE = 50  # lines between two turns of the event loop
PAUSE = 0.01  # seconds between reads of what is dropped: it must be read, or the process would wait for us forever
SHORTEST_SECRET = 4  # characters; a shorter one is a part of many words


class Output:
    """The log of one attempt."""

    def __init__(self, assignment: Assignment) -> None:
        self._about = {
            "job": str(assignment.job_id),
            "kind": assignment.kind,
            "attempt": assignment.attempt,
            "tenant": assignment.tenant_id,
        }
        self._secrets = secrets_in(KINDS.get(assignment.kind), assignment.input)
        self._lines, self._characters = LINES_LIMIT, OUTPUT_LIMIT

    def clean(self, text: str) -> str:
        """`text` without secrets: those of the job's input, and what looks like one."""
        return redact_text(without(self._secrets, text))

    def record(self, line: LogLine) -> None:
        """Log a record of the process's own log."""
        fields = {name: self._field(value) for name, value in redact(line.fields).items()}
        self._write(line.level, line.logger, self.clean(line.text), fields)

    def _field(self, value: Any) -> Any:
        return self.clean(value)[:LINE_LIMIT] if isinstance(value, str) else value

    def _write(self, level: int, logger: str, text: str, fields: dict[str, Any]) -> None:
        if not self._left:
            return
        self._lines -= 1
        self._characters -= len(text) + sum(len(str(value)) for value in fields.values())
        record = {**fields, **self._about, "name": logger, "levelno": level, "levelname": logging.getLevelName(level)}
        _handle(record | {"msg": text[:LINE_LIMIT], "args": ()})
        if not self._left:
            log.warning("more output of this attempt is dropped", extra=self._about)

    @property
    def _left(self) -> bool:
        return self._lines > 0 and self._characters > 0

    async def follow(self, pipe: int) -> None:
        """Log the lines that the process and its children write to stdout and stderr, until all have closed them."""
        begun = b""
        while chunk := await _read(pipe):
            *lines, begun = (begun + chunk).split(b"\n")
            begun = begun[:CLEANED]
            await self._log(lines)
        await self._log([begun])

    async def _log(self, lines: list[bytes]) -> None:
        for number, line in enumerate(filter(None, lines), 1):
            if not self._left:
                await asyncio.sleep(PAUSE)
                return
            self._write(logging.INFO, log.name, self.clean(line[:CLEANED].decode(errors="replace")), {})
            if number % LINES_AT_ONCE == 0:
                await asyncio.sleep(0)


async def _read(pipe: int) -> bytes:
    """The next bytes of a pipe that does not block; empty at its end."""
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pipe, readable.set)
    try:
        await readable.wait()
        return os.read(pipe, CHUNK)
    finally:
        loop.remove_reader(pipe)


def _handle(attributes: dict[str, Any]) -> None:
    """Pass a record to the logger it names, as if it had been made here."""
    logger = logging.getLogger(attributes["name"])
    if logger.isEnabledFor(attributes["levelno"]):
        logger.handle(logging.makeLogRecord(attributes))


def secrets_in(kind: Kind | None, content: bytes) -> list[str]:
    """The texts in fields of the input that the kind declares secret, the longest first: one may be a part of another."""
    if not kind or not kind.secret:
        return []
    with suppress(msgspec.DecodeError):  # whoever runs the function reports it
        given = msgspec.json.decode(content, type=dict[str, Any])
        return sorted((text for name in kind.secret for text in texts_in(given.get(name))), key=len, reverse=True)
    return []


def without(secrets: Iterable[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text


def texts_in(value: Any) -> Iterator[str]:
    """The texts in it that are long enough to be a secret."""
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, list):
        for one in value:
            yield from texts_in(one)
    elif isinstance(value, str) and len(value) >= SHORTEST_SECRET:
        yield value
