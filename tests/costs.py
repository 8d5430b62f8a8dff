"""Counts statements, commits and round trips to PostgreSQL by libpq's own trace, for test_costs.py."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import psycopg
from psycopg.pq import Trace

CONTROL = {"BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE"}  # round trips, and no statements
HINTS = {"NOTIFY", "LISTEN", "DEALLOCATE"}  # how many there are depends on time, not on batches
PREPARATION = {"ParseComplete", "CloseComplete"}  # of a statement: once per connection and not per batch

# The trace has a line per message: its direction, length, name and content. Texts of statements go on in lines of their own.
_MESSAGE = re.compile(r"^([FB])\t\d+\t(\w+)(?:\t ([^\n]*))?$", re.MULTILINE)


class Cost(NamedTuple):
    """What was sent and committed."""

    statements: int
    commits: int  # transactions that ended, read-only ones too
    round_trips: int  # waits for the server; the preparation of a statement is none


class Tap:
    """What every connection of psycopg's async kind sends, from its next use on until `end`."""

    def __init__(self) -> None:
        self.cost = Cost(0, 0, 0)
        self._traces: dict[psycopg.AsyncConnection, int] = {}

    def listen(self, connection: psycopg.AsyncConnection) -> None:
        if connection not in self._traces:
            trace = self._traces[connection] = os.memfd_create("trace")
            connection.pgconn.trace(trace)
            connection.pgconn.set_trace_flags(Trace.SUPPRESS_TIMESTAMPS)

    def end(self) -> None:
        for connection, trace in self._traces.items():
            if not connection.closed:
                connection.pgconn.untrace()
            self.cost = Cost(*map(sum, zip(self.cost, _cost(trace), strict=True)))
            os.close(trace)


@contextmanager
def tapped() -> Iterator[Tap]:
    """Count what all connections send inside this block, whoever asks them to; the sum is there after it."""
    tap, wait = Tap(), psycopg.AsyncConnection.wait

    async def heard(self: psycopg.AsyncConnection, *args: Any, **options: Any) -> Any:
        tap.listen(self)
        return await wait(self, *args, **options)

    psycopg.AsyncConnection.wait = heard  # type: ignore[method-assign, assignment]
    try:
        yield tap
    finally:
        psycopg.AsyncConnection.wait = wait  # type: ignore[method-assign]
        tap.end()


def _cost(trace: int) -> Cost:
    text = os.pread(trace, os.fstat(trace).st_size, 0).decode("latin-1")
    answers = [
        [(name, content) for _, name, content in messages]
        for sender, messages in groupby(_MESSAGE.findall(text), key=itemgetter(0))
        if sender == "B"
    ]
    return Cost(
        statements=sum(command not in CONTROL | HINTS for answer in answers for command in _commands(answer)),
        commits=_commits(message for answer in answers for message in answer),
        round_trips=sum(map(_is_work, answers)),
    )


type _Message = tuple[str, str]  # name and content


def _commands(answer: Iterable[_Message]) -> list[str]:
    """What the server says that it has done, such as UPDATE."""
    return [content.strip('"').split()[0] for name, content in answer if name == "CommandComplete"]


def _is_work(answer: Sequence[_Message]) -> bool:
    if commands := _commands(answer):
        return not HINTS.issuperset(commands)
    return not any(name in PREPARATION for name, _ in answer)


def _commits(messages: Iterable[_Message]) -> int:
    """How often the server was in no transaction any more after it had done something."""
    ended, under_way = 0, False
    for message in messages:
        if message == ("ReadyForQuery", "I"):
            ended, under_way = ended + under_way, False
        under_way = under_way or not HINTS.issuperset(_commands([message]))
    return ended
