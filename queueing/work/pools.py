"""Pools: groups of workers for some of the work, which all other workers leave to them while one of them is alive.

A pool takes kinds of work (`webhooks`) and parts of them: one kind of job (`jobs/payments.export`), or the payments that routing
would send to one processor now (`payments/stripe`).
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from queueing.work.table import TABLES

LARGEST = 100  # workers of a pool
# Kinds of work that have parts, by queue: whether there may be a part of this name. Registered by the work.
DIVIDED: dict[str, Callable[[str], bool]] = {}
_FORM = re.compile(r"([a-z0-9][a-z0-9-]{0,30})=([^:]+):([0-9]+)-([0-9]+)")


class InvalidPool(ValueError):
    """The text describes no pool."""


@dataclass(frozen=True)
class WorkerPool:
    """Workers that take only `takes`: at least `minimum`, at most `maximum`."""

    name: str
    takes: tuple[str, ...]
    minimum: int
    maximum: int


def read(texts: Iterable[str]) -> tuple[WorkerPool, ...]:
    """The pools that `up --pool NAME=KINDS:MIN-MAX` names. Raises InvalidPool."""
    found = tuple(map(_read, texts))
    for kind, names in (
        ("pool", [pool.name for pool in found]),
        ("take", [one for pool in found for one in pool.takes]),
    ):
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise InvalidPool(f"{twice!r} stands twice: each {kind} is of one pool")
    return found


def _read(text: str) -> WorkerPool:
    found = _FORM.fullmatch(text)
    if not found:
        raise InvalidPool(f"{text!r}: wants NAME=KINDS:MIN-MAX, such as heavy=jobs/payments.export,webhooks:1-3")
    name, takes, minimum, maximum = found[1], tuple(found[2].split(",")), int(found[3]), int(found[4])
    for one in takes:
        queue, slash, part = one.partition("/")
        if queue not in TABLES or (slash and not (queue in DIVIDED and DIVIDED[queue](part))):
            known = ", ".join([*sorted(TABLES), *(f"{queue}/…" for queue in sorted(DIVIDED))])
            raise InvalidPool(f"{text!r}: {one!r} is no kind of work; there are {known}")
    if not (1 <= maximum <= LARGEST and minimum <= maximum):
        raise InvalidPool(f"{text!r}: wants MIN from 0 to MAX, and MAX from 1 to {LARGEST}")
    return WorkerPool(name, takes, minimum, maximum)


@dataclass(frozen=True)
class Division:
    """What a worker may take now. `takes`: of its pool; empty for workers of no pool, which take what is left.

    `reserved`: what living workers of other pools take.
    """

    takes: frozenset[str] = frozenset()
    reserved: frozenset[str] = frozenset()

    def takes_some(self, queue: str) -> bool:
        """Whether the worker takes any rows of this kind of work."""
        if self.takes:
            return any(one == queue or one.startswith(f"{queue}/") for one in self.takes)
        return queue not in self.reserved

    def takes_part(self, queue: str, part: str) -> bool:
        one = f"{queue}/{part}"
        if one in self.takes:
            return True
        whole = queue in self.takes if self.takes else queue not in self.reserved
        return whole and one not in self.reserved

    def parts(self, queue: str) -> tuple[frozenset[str], bool]:
        """Names of parts, and whether they are those that the worker takes, or those that it leaves."""
        whole = queue in self.takes if self.takes else queue not in self.reserved
        named = self.reserved if whole else self.takes
        return frozenset(one.partition("/")[2] for one in named if one.startswith(f"{queue}/")), not whole

    def is_divided(self, queue: str) -> bool:
        """Whether parts of this kind of work are taken by different pools."""
        return any(one.startswith(f"{queue}/") for one in self.takes | self.reserved)


def division(pool: str, takes: Iterable[str], living: Iterable[tuple[str, Iterable[str]]]) -> Division:
    """The division for a worker of `pool`; `living`: pool and takes of all living workers."""
    reserved = {one for other, taken in living if other != pool for one in taken}
    return Division(frozenset(takes), frozenset(reserved))
