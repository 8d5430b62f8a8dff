"""Outcomes of an attempt of a job: it succeeded, failed or was canceled. What a function returned or raised becomes one of them."""

import signal
import traceback

import msgspec

from queueing.jobs.kinds import JobCanceled, JobFailed, JobRetry
from registry.data import faults
from registry.data.faults import Fault
from registry.errors import Unavailable

OWN_FAULTS = (Fault.SLOW, Fault.MISSING, Fault.BROKEN)  # of a statement, where the database is available
LARGEST_RESULT = 64 * 1024  # bytes of JSON; contract section 6
LONGEST_ERROR, LONGEST_TRACEBACK = (
    1000,
    16_000,
)  # characters that are stored; of a traceback the end, which names the error
LONGEST_CODE = 50  # characters
LONGEST_AFTER = 366 * 24 * 3600.0  # seconds until another attempt at most
MIB = 2**20


class Succeeded(msgspec.Struct, frozen=True, tag=True):
    """The attempt returned `result`: JSON of at most LARGEST_RESULT bytes."""

    result: bytes


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The attempt failed. `permanent`: no other attempt would succeed. `code` is for programs, `detail` for people."""

    code: str
    detail: str
    traceback: str = ""
    permanent: bool = False
    after: float = 0.0  # seconds until the next attempt at least


class Canceled(msgspec.Struct, frozen=True, tag=True):
    """The attempt ended because it was told to."""


class Interrupted(msgspec.Struct, frozen=True, tag=True):
    """The attempt does not count, because what ended it was no fault of the job: the database was away, for instance."""


type Outcome = Succeeded | Failed | Canceled | Interrupted


def of_value(value: object) -> Succeeded | Failed:
    """The outcome of a function that returned `value`."""
    try:
        result = msgspec.json.encode(value)
    except Exception as error:  # a type that JSON lacks, half of a surrogate pair, a list in itself
        return Failed("result_not_json", cut(f"the result cannot be written as JSON: {error}"), permanent=True)
    if len(result) > LARGEST_RESULT:
        detail = f"the result has {len(result):,} bytes; at most {LARGEST_RESULT:,} are kept"
        return Failed("result_too_large", detail, permanent=True)
    return Succeeded(result)


def of_error(error: BaseException) -> Failed | Canceled:
    """The outcome of a function that raised `error`."""
    match error:
        case JobCanceled():
            return Canceled()
        case JobFailed():
            return Failed(_code(error.code), cut(error.detail), permanent=True)
        case JobRetry():
            return Failed(_code(error.code), cut(error.detail), after=_seconds(error.after))
        case MemoryError():
            return Failed("out_of_memory", "asked for more memory than its limit", trace(error))
    return Failed("error", cut("".join(traceback.format_exception_only(error)).strip()), trace(error))


def is_outage(error: BaseException, *, away: bool) -> bool:
    """Whether the database is at fault: then another attempt is made, and this one does not count. A statement that fails on a
    database that is not `away` would fail for ever."""
    if not faults.is_temporary(error):
        return False
    cause = error.__cause__ if isinstance(error, Unavailable) else error
    own = isinstance(cause, TimeoutError) or (cause is not None and faults.of(cause) in OWN_FAULTS)
    return away or not own


def of_bad_input(error: msgspec.MsgspecError) -> Failed:
    return Failed("invalid_input", cut(f"the input does not fit the kind: {error}"), permanent=True)


def timed_out(timeout: float) -> Failed:
    return Failed("timed_out", f"did not end within {timeout:g} s")


def out_of_memory(memory: int) -> Failed:
    return Failed("out_of_memory", f"its processes used more than {memory // MIB:,} MiB of memory")


def process_died(why: str) -> Failed:
    return Failed("process_died", f"its process died: {why}")


def of_exit(status: int) -> Failed:
    """The outcome of a process that ended without one. `status`: as of subprocess, negative for a signal."""
    if status >= 0:
        return process_died(f"it exited with status {status} before it returned a result")
    number = -status
    name = signal.Signals(number).name if number in {*signal.Signals} else "unknown"
    hint = " (the kernel kills so when the machine has no memory left)" if number == signal.SIGKILL else ""
    return process_died(f"signal {number}, {name}{hint}")


def storable(text: object) -> str:
    """The text as PostgreSQL can store it: without NUL, and without halves of surrogate pairs."""
    return str(text).encode(errors="replace").decode().replace("\0", "\ufffd")


def cut(text: object) -> str:
    shown = storable(text)
    return shown if len(shown) <= LONGEST_ERROR else shown[: LONGEST_ERROR - 1] + "…"


def trace(error: BaseException) -> str:
    return storable("".join(traceback.format_exception(error)))[-LONGEST_TRACEBACK:]


def _code(code: object) -> str:
    return storable(code)[:LONGEST_CODE]


def _seconds(after: object) -> float:
    """What a function asked for as a number that a time can be put off by; 0 for what is none."""
    try:
        seconds = float(after)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return min(seconds, LONGEST_AFTER) if seconds > 0 else 0.0
