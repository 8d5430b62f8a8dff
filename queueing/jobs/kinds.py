"""Kinds of jobs, registered by name: what their input is, their limits, and the function that does them.

A kind is one file. Apps register theirs in a module `jobs.py`, which is imported at start:

    class Greeting(msgspec.Struct, forbid_unknown_fields=True):
        name: str

    @kind("shop.greet", input=Greeting, timeout=10)
    def greet(context: Context, greeting: Greeting) -> dict[str, str]:
        context.progress(1, 2, "half way")
        return {"text": f"Hello {greeting.name}"}

The returned value is the job's result, as JSON. `JobFailed` fails the job at once; any other exception lets it be tried again.
"""

import inspect
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol
from uuid import UUID

import msgspec

from registry.errors import Invalid

if TYPE_CHECKING:  # a fork server imports this module before the apps are loaded
    from registry.tenants.access import Principal

MAX_ATTEMPTS = 5  # attempts of a job whose kind and request name no number
TIMEOUT = 60.0  # seconds of one attempt, likewise
LONGEST_TIMEOUT = 24 * 3600.0  # seconds
MOST_ATTEMPTS = 100
NAMES = re.compile(r"[a-z][a-z0-9._-]{0,99}")
SCOPES = ("read", "write", "admin")
MEMORY = 512 * 2**20  # bytes that a child process may use, with its children
DEFAULT_SCOPE = "write"  # of the API key that submits

type Runs = Literal["loop", "process"]


class JobFailed(Exception):
    """The job cannot succeed: it fails at once, and is not tried again. `code` is for programs, the text for people."""

    def __init__(self, detail: str, *, code: str = "failed") -> None:
        self.code, self.detail = code, detail
        super().__init__(detail)


class JobRetry(Exception):
    """This attempt failed in a way that may pass: the job is tried again, after at least `after` seconds."""

    def __init__(self, detail: str, *, code: str = "failed", after: float = 0.0) -> None:
        self.code, self.detail, self.after = code, detail, after
        super().__init__(detail)


class JobCanceled(Exception):
    """The job was canceled, or its lease ended: raised at a checkpoint."""


class JobFileOutput(Protocol):
    """The file that a job writes."""

    name: str
    size: int  # bytes written so far

    async def write(self, data: bytes) -> None: ...


class JobLog(logging.LoggerAdapter[logging.Logger]):
    """The log of a job: adds what it is made with to each record, beside the record's own `extra`."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, {**kwargs, "extra": {**(kwargs.get("extra") or {}), **(self.extra or {})}}


class Context(Protocol):
    """What the function of a kind gets beside its input. The methods may be called from the function's own thread or loop only."""

    job_id: UUID
    tenant_id: int
    attempt: int  # as the API shows it: one that a stopped worker handed back does not count, though the function may have begun

    @property
    def key(self) -> str:
        """Idempotency key of this attempt, the same for all calls to other services in it."""

    @property
    def log(self) -> JobLog: ...

    @property
    def cancelled(self) -> bool:
        """Whether the function should stop: the job was canceled, or this attempt has lost its lease."""

    def check(self) -> None:
        """A checkpoint: raises JobCanceled if the function should stop."""

    def file(self, name: str, content_type: str, *, gzip: bool = False) -> AbstractAsyncContextManager["JobFileOutput"]:
        """Write a file, which the job then offers by a signed link until its result expires. For functions on the loop."""

    def progress(self, done: int, total: int | None = None, message: str = "") -> None:
        """Report progress, which the job shows within a second. A checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of job. `attempts` and `timeout` are those of a request that names none."""

    name: str
    function: Callable[[Context, Any], Any]
    input: type[msgspec.Struct]
    runs: Runs
    scope: str = DEFAULT_SCOPE  # that an API key needs to submit one
    attempts: int = MAX_ATTEMPTS
    timeout: float = TIMEOUT
    concurrency: int | None = None  # running at once in all; None: no limit
    tenant_concurrency: int | None = None  # running at once of one tenant
    rate: float | None = None  # starts per second, in all
    memory: int = MEMORY  # of a child process
    title: str = ""  # what it does, for pages
    public: bool = True  # whether the API takes it; others are submitted by the product itself
    secret: tuple[str, ...] = ()  # fields of the input whose values are encrypted at rest and not shown
    addresses: tuple[str, ...] = ()  # fields of the input with URLs whose hosts `check` looks up
    check: Callable[["Principal", Any], Awaitable[list[dict[str, str]]]] | None = (
        None  # faults of a decoded input, by field
    )
    decoder: "msgspec.json.Decoder[Any]" = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Raises TypeError for what no job of this kind could have: a wrong name of a secret field would leave its values readable."""
        if wrong := self._fault():
            raise TypeError(f"job kind {self.name!r}: {wrong}")
        object.__setattr__(self, "decoder", msgspec.json.Decoder(self.input))

    def _fault(self) -> str:
        names = [one.encode_name for one in msgspec.structs.fields(self.input)]
        if not NAMES.fullmatch(self.name):
            return "a name has up to 100 lower-case letters, digits, '.', '_' and '-', and begins with a letter"
        if self.scope not in SCOPES:
            return f"there is no scope {self.scope!r}; there are {', '.join(SCOPES)}"
        for field_name in (*self.secret, *self.addresses):
            if field_name not in names:
                return f"its input has no field {field_name!r} (names as in JSON: {', '.join(names)})"
        if not 1 <= self.attempts <= MOST_ATTEMPTS:
            return f"attempts are 1 to {MOST_ATTEMPTS}, not {self.attempts!r}"
        return "" if 0 < self.timeout <= LONGEST_TIMEOUT else f"a time-out is above 0 and at most {LONGEST_TIMEOUT:g} s"


KINDS: dict[str, Kind] = {}


def kind[Function: Callable[[Any, Any], Any]](
    name: str, *, input: type[msgspec.Struct], runs: Runs = "process", **options: Any
) -> Callable[[Function], Function]:
    """Function decorator: register a kind of job.

    `runs="loop"` is for async functions that never block; all others run in a child process of their own.
    """

    def register(function: Function) -> Function:
        if runs == "loop" and not inspect.iscoroutinefunction(function):
            raise TypeError(f"the function of job kind {name!r} is not async: it has to run in a process")
        if name in KINDS:
            raise ValueError(f"there are two kinds of job called {name!r}")
        title = (function.__doc__ or "").partition("\n")[0]
        KINDS[name] = Kind(name=name, function=function, input=input, runs=runs, **{"title": title, **options})
        return function

    return register


ADMIN_SCOPE = "admin"  # for what is known of no kind


def scope_of(name: str) -> str:
    """The scope that a kind needs; of one that is not registered any more the highest."""
    return KINDS[name].scope if name in KINDS else ADMIN_SCOPE


def is_guarded(name: str) -> bool:
    """Whether files of the kind are only for those who may submit it: it needs more than `write`."""
    return scope_of(name) not in ("read", DEFAULT_SCOPE)


def named(name: str, *, public: bool = False) -> Kind:
    """The kind of this name; `public`: one that requests may submit. Raises Invalid (422) naming the field and the kinds that exist."""
    if (found := KINDS.get(name)) and (found.public or not public):
        return found
    known = ", ".join(sorted(name for name, one in KINDS.items() if one.public))
    raise Invalid(errors=[{"field": "kind", "message": f"there is no kind {name[:100]!r}; there are {known}"}])
