"""A kit for whoever writes a receiver: calls it as we do and as we never would, and says what a good receiver does then."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from queueing.outbound import signing
from queueing.outbound.fanout import message_body, new_message_id
from queueing.outbound.signing import new_secret
from queueing.outbound.work import HEADERS, READ_MOST
from registry.edge.api import iso
from registry.http.client import Answer, Client, HttpError
from registry.http.ssrf import Outside, parted

ANSWER_WITHIN = 5.0  # seconds; a good receiver notes the message, answers, and works afterwards
WAIT = 15.0  # seconds that a delivery waits
OFF = timedelta(hours=1)  # how far a time is off that must not be taken: the specification allows 5 minutes
SHOWN = 200  # characters of an answer
AT_ONCE = 10  # messages of the burst


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one check."""

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
class Said:
    """An answer, or why there was none."""

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
    """Speaks to one receiver and remembers what it said."""

    def __init__(self, client: Client, target: str, secret: str) -> None:
        self.client, self.target, self.secret = client, target, secret
        self.said: list[Said] = []

    def message(self, type: str = "payment.succeeded", *, sequence: int = 2, subject: str = "") -> str:
        data = {
            "correlationId": subject or str(uuid4()),
            "status": type.partition(".")[2],
            "amount": "19.90",
            "currency": "BRL",
            "processor": "default",
            "attempts": 1,
            "updatedAt": iso(datetime.now(UTC)),
            "sequence": sequence,
        }
        return message_body(type, datetime.now(UTC), data)

    def signed(self, body: str, *, id: str = "", at: datetime | None = None) -> dict[str, str]:
        return signing.headers([self.secret], id or new_message_id(), at or datetime.now(UTC), body)

    async def send(self, body: str, headers: dict[str, str] | None = None) -> Said:
        started = time.perf_counter()
        try:
            answer = await self.client.request(
                "POST",
                self.target,
                body.encode(),
                limit=WAIT,
                headers=self.signed(body) if headers is None else headers,
            )
            said = Said(answer.status, text_of(answer), time.perf_counter() - started)
        except HttpError as problem:
            said = Said(None, str(problem) or repr(problem), time.perf_counter() - started)
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
    subject = str(uuid4())
    said = [
        await caller.send(caller.message(f"payment.{status}", sequence=sequence, subject=subject))
        for status, sequence in (("succeeded", 3), ("queued", 1), ("processing", 2))
    ]
    return all(one.good for one in said), ", ".join(one.words for one in said)


async def _at_once(caller: Caller) -> tuple[bool, str]:
    said = await asyncio.gather(*(caller.send(caller.message()) for _ in range(AT_ONCE)))
    good = sum(one.good for one in said)
    return good == AT_ONCE, f"{good} of {AT_ONCE} taken"


async def _two_signatures(caller: Caller) -> tuple[bool, str]:
    body = caller.message()
    headers = signing.headers([new_secret(), caller.secret], new_message_id(), datetime.now(UTC), body)
    said = await caller.send(body, headers)
    return said.good, said.words


async def _unknown_type(caller: Caller) -> tuple[bool, str]:
    said = await caller.send(caller.message("payment.invented_later"))
    return said.good, said.words


async def _bad_signature(caller: Caller) -> tuple[bool, str]:
    body = caller.message()
    said = await caller.send(body, signing.headers([new_secret()], new_message_id(), datetime.now(UTC), body))
    return said.refused, said.words


async def _no_signature(caller: Caller) -> tuple[bool, str]:
    said = await caller.send(caller.message(), {})
    return said.refused, said.words


async def _altered(caller: Caller) -> tuple[bool, str]:
    body = caller.message()
    said = await caller.send(body.replace("19.90", "91.90"), caller.signed(body))
    return said.refused, said.words


async def _other_id(caller: Caller) -> tuple[bool, str]:
    body = caller.message()
    said = await caller.send(body, {**caller.signed(body), "webhook-id": new_message_id()})
    return said.refused, said.words


async def _old(caller: Caller) -> tuple[bool, str]:
    body = caller.message()
    said = await caller.send(body, caller.signed(body, at=datetime.now(UTC) - OFF))
    return said.refused, said.words


async def _future(caller: Caller) -> tuple[bool, str]:
    body = caller.message()
    said = await caller.send(body, caller.signed(body, at=datetime.now(UTC) + OFF))
    return said.refused, said.words


async def _quick(caller: Caller) -> tuple[bool, str]:
    slowest = max(one.seconds for one in caller.said)
    return slowest < ANSWER_WITHIN, f"the slowest of {len(caller.said)} answers took {slowest:.2f} s"


async def _no_redirects(caller: Caller) -> tuple[bool, str]:
    moved = [one for one in caller.said if one.status is not None and 300 <= one.status < 400]
    return not moved, f"{len(moved)} of {len(caller.said)} answers were redirects, which are not followed"


TAKE, REFUSE = "answers 2xx", "answers 4xx and does nothing"
CHECKS = (
    Check("a message, well signed", TAKE, _takes),
    Check("the same message twice", f"{TAKE} both times and counts it once, by webhook-id", _twice),
    Check("a payment's events out of order", f"{TAKE} and keeps the newest, by data.sequence", _shuffled),
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
) -> AsyncIterator[Result]:
    """Each check's result as it comes. Raises BadAddress for what is no receiver's URL."""
    origin, target = parted(url, tls_only=tls_only)
    own = outside or Outside()
    client = Client(origin, largest_body=READ_MOST, headers=HEADERS, resolve=own.resolve)
    caller = Caller(client, target, secret)
    try:
        for check in CHECKS:
            yield await _one(check, caller)
            if caller.said[0].status is None:  # nobody there: the rest would only say so again
                return
    finally:
        await client.close()
        own.close()


async def _one(check: Check, caller: Caller) -> Result:
    before, started = len(caller.said), time.perf_counter()
    passed, happened = await check.run(caller)
    answers = [f"{one.status or '–'} {one.text}".strip() for one in caller.said[before:]]
    return Result(check.name, check.wanted, passed, happened, time.perf_counter() - started, answers)


def is_secret(text: str) -> bool:
    """Whether this is a signing secret as Standard Webhooks writes them."""
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        return False
    return text.startswith("whsec_") and 24 <= len(key) <= 64
