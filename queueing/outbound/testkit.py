"""The test kit for receivers of webhooks: calls one with good and bad messages and compares its answers with what is expected."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from queueing.outbound import sources
from queueing.outbound.messages import message_body, new_message_id
from queueing.outbound.signing import new_secret
from queueing.outbound.work import HEADERS, READ_MOST
from registry.data import clock
from registry.http import signatures
from registry.http.client import Answer, Client, HttpError
from registry.http.ssrf import Outside, parted

ANSWER_WITHIN = 5.0  # seconds; a good receiver stores the message, answers, and does the work afterwards
WAIT = 15.0  # seconds that a delivery waits
OFF = timedelta(hours=1)  # of a timestamp that must be refused: the specification allows 5 minutes
SHOWN = 200  # characters of an answer
AT_ONCE = 10  # messages of the burst


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check."""

    name: str
    wanted: str  # what a good receiver does
    passed: bool
    happened: str
    seconds: float
    answers: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    wanted: str
    run: "Callable[[Caller], Awaitable[tuple[bool, str]]]"


@dataclass(slots=True)
class ReceiverAnswer:
    """An answer, or the reason why there was none."""

    status: int | None
    text: str
    seconds: float

    @property
    def good(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        return self.status is not None and 400 <= self.status < 500

    @property
    def words(self) -> str:
        return f"answered {self.status}" if self.status is not None else self.text


class Caller:
    """Sends messages to one receiver and keeps its answers."""

    def __init__(self, client: Client, target: str, secret: str) -> None:
        self.client, self.target, self.secret = client, target, secret
        self.said: list[ReceiverAnswer] = []

    def message(self, type: str = "", *, sequence: int = 2, subject: UUID | None = None) -> str:
        """An invented event; its type is the last of the source's examples unless given."""
        source, at = sources.example_source(), clock.now()
        type = type or source.examples[-1]
        return message_body(type, at, source.example(type, subject or uuid4(), sequence, at))

    def signed(self, body: str, *, id: str = "", at: datetime | None = None) -> dict[str, str]:
        return signatures.headers([self.secret], id or new_message_id(), at or clock.now(), body)

    async def send(self, body: str, headers: dict[str, str] | None = None) -> ReceiverAnswer:
        started = time.perf_counter()
        try:
            answer = await self.client.request(
                "POST",
                self.target,
                body.encode(),
                limit=WAIT,
                headers=self.signed(body) if headers is None else headers,
            )
            said = ReceiverAnswer(answer.status, text_of(answer), time.perf_counter() - started)
        except HttpError as problem:
            said = ReceiverAnswer(None, str(problem) or repr(problem), time.perf_counter() - started)
        self.said.append(said)
        return said


def text_of(answer: Answer) -> str:
    return answer.body[:SHOWN].decode(errors="replace").replace("\0", "�").strip()


# -- The checks ------------------------------------------------------------------------------------------------


async def _takes(caller: Caller) -> tuple[bool, str]:
    said = await caller.send(caller.message())
    return said.good, said.words


async def _twice(caller: Caller) -> tuple[bool, str]:
    body, id = caller.message(), new_message_id()
    first = await caller.send(body, caller.signed(body, id=id))
    second = await caller.send(body, caller.signed(body, id=id))
    return first.good and second.good, f"first {first.words}, then {second.words}"


async def _shuffled(caller: Caller) -> tuple[bool, str]:
    subject, (first, second, third) = uuid4(), sources.example_source().examples
    said = [
        await caller.send(caller.message(type, sequence=sequence, subject=subject))
        for type, sequence in ((third, 3), (first, 1), (second, 2))
    ]
    return all(one.good for one in said), ", ".join(one.words for one in said)


async def _at_once(caller: Caller) -> tuple[bool, str]:
    said = await asyncio.gather(*(caller.send(caller.message()) for _ in range(AT_ONCE)))
    good = sum(one.good for one in said)
    return good == AT_ONCE, f"{good} of {AT_ONCE} taken"


async def _two_signatures(caller: Caller) -> tuple[bool, str]:
    body = caller.message()
    headers = signatures.headers([new_secret(), caller.secret], new_message_id(), clock.now(), body)
    said = await caller.send(body, headers)
    return said.good, said.words


async def _unknown_type(caller: Caller) -> tuple[bool, str]:
    said = await caller.send(caller.message(f"{sources.example_source().noun}.invented_later"))
    return said.good, said.words


async def _bad_signature(caller: Caller) -> tuple[bool, str]:
    body = caller.message()
    said = await caller.send(body, signatures.headers([new_secret()], new_message_id(), clock.now(), body))
    return said.refused, said.words


async def _no_signature(caller: Caller) -> tuple[bool, str]:
    said = await caller.send(caller.message(), {})
    return said.refused, said.words


async def _altered(caller: Caller) -> tuple[bool, str]:
    body = caller.message()
    said = await caller.send(body.replace('"timestamp":"2', '"timestamp":"1'), caller.signed(body))
    return said.refused, said.words


async def _other_id(caller: Caller) -> tuple[bool, str]:
    body = caller.message()
    said = await caller.send(body, {**caller.signed(body), "webhook-id": new_message_id()})
    return said.refused, said.words


async def _old(caller: Caller) -> tuple[bool, str]:
    body = caller.message()
    said = await caller.send(body, caller.signed(body, at=clock.now() - OFF))
    return said.refused, said.words


async def _future(caller: Caller) -> tuple[bool, str]:
    body = caller.message()
    said = await caller.send(body, caller.signed(body, at=clock.now() + OFF))
    return said.refused, said.words


async def _quick(caller: Caller) -> tuple[bool, str]:
    slowest = max(one.seconds for one in caller.said)
    return slowest < ANSWER_WITHIN, f"the slowest of {len(caller.said)} answers took {slowest:.2f} s"


async def _no_redirects(caller: Caller) -> tuple[bool, str]:
    moved = [one for one in caller.said if one.status is not None and 300 <= one.status < 400]
    return not moved, f"{len(moved)} of {len(caller.said)} answers were redirects, which are not followed"


TAKE, REFUSE = "answers 2xx", "answers 4xx and does nothing"


def checks() -> tuple[Check, ...]:
    """All checks, in the order in which they run."""
    noun = sources.example_source().noun
    return (
        Check("a message, well signed", TAKE, _takes),
        Check("the same message twice", f"{TAKE} both times and counts it once, by webhook-id", _twice),
        Check(f"a {noun}'s events out of order", f"{TAKE} and keeps the newest, by data.sequence", _shuffled),
        Check(f"{AT_ONCE} messages at once", f"{TAKE} to each", _at_once),
        Check("two signatures, as while a secret is replaced", f"{TAKE}: one that fits is enough", _two_signatures),
        Check("a type it does not know", f"{TAKE} and ignores it: there will be new ones", _unknown_type),
        Check("a signature by another secret", REFUSE, _bad_signature),
        Check("no signature at all", REFUSE, _no_signature),
        Check("a body that was altered", REFUSE, _altered),
        Check("another message's id", REFUSE, _other_id),
        Check("an hour old", REFUSE, _old),
        Check("an hour ahead", REFUSE, _future),
        Check("quick answers", f"answers within {ANSWER_WITHIN:.0f} s and works afterwards", _quick),
        Check("no redirects", "answers at this very address", _no_redirects),
    )


async def run(
    url: str, secret: str, *, tls_only: bool = False, outside: Outside | None = None
) -> AsyncIterator[CheckResult]:
    """Run the checks and yield each result. Raises BadAddress for a URL that no receiver can have."""
    origin, target = parted(url, tls_only=tls_only)
    own = outside or Outside()
    client = Client(origin, largest_body=READ_MOST, headers=HEADERS, resolve=own.resolve)
    caller = Caller(client, target, secret)
    try:
        for check in checks():
            yield await _one(check, caller)
            if caller.said[0].status is None:  # nothing answers: the other checks would fail alike
                return
    finally:
        await client.close()
        own.close()


async def _one(check: Check, caller: Caller) -> CheckResult:
    before, started = len(caller.said), time.perf_counter()
    passed, happened = await check.run(caller)
    answers = [f"{one.status or '–'} {one.text}".strip() for one in caller.said[before:]]
    return CheckResult(check.name, check.wanted, passed, happened, time.perf_counter() - started, answers)


def is_secret(text: str) -> bool:
    """Whether this is a signing secret in the form of Standard Webhooks."""
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        return False
    return text.startswith("whsec_") and 24 <= len(key) <= 64
