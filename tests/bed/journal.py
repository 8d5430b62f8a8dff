"""The journal: a file of the moments at which the bed's jobs start and end, for checks of their executions.

Each line is one moment of one execution, written at once and whole, so that it is there whatever is killed next.
"""

import os
import time
from enum import StrEnum
from uuid import UUID

import msgspec

VARIABLE = "BED_JOURNAL"  # environment variable that names the file


class What(StrEnum):
    BEGAN = "began"
    ALIVE = "alive"  # again and again while it runs
    ENDED = "ended"


class Moment(msgspec.Struct, array_like=True, frozen=True):
    """`at` is the machine's monotonic clock, which all processes share; `attempt` the fence, which no two attempts have in common."""

    job: str
    attempt: int
    pid: int
    what: What
    at: float


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Moment).decode


def note(job: UUID, attempt: int, what: What) -> float:
    """Append a line; its `at`."""
    moment = Moment(str(job), attempt, os.getpid(), what, time.monotonic())
    file = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(file, encode(moment) + b"\n")
    finally:
        os.close(file)
    return moment.at
