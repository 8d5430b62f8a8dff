"""Outcomes of attempts: delivered, dead, or pending with the time until the next attempt; and what the log keeps of an answer. No I/O."""

import json
import random
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from queueing.outbound.retries import GONE, REST_AT_MOST, retry_after, wait_before
from queueing.work.work import Key
from registry.data.arrays import Bigints, Texts, unless_empty
from registry.http.client import Answer, AnswerTimeout, BadAddress, BadAnswer, Disconnected, HttpError, NotSent

KEPT_BODY = 2 * 1024  # bytes of an answer in the log
KEPT_HEADERS, KEPT_HEADER = 20, 200  # headers of an answer in the log, and characters of each


class Due(NamedTuple):
    """A claimed delivery; its fields are the columns of the statement `take`."""

    tenant_id: int
    delivery_id: int
    endpoint_id: int
    message_id: str
    type: str
    body: str
    number: int
    tries_from: int
    ordered: bool
    created_at: datetime
    uuid: UUID
    url: str
    secrets: bytes
    mode: str

    @property
    def key(self) -> Key:
        return self.tenant_id, self.delivery_id


class Try(NamedTuple):
    """The outcome of one attempt."""

    due: Due
    status: str
    wait: float | None  # seconds until the next one
    rest: float | None  # seconds that the whole endpoint wants to be left alone
    error: str  # "": delivered
    signed_at: datetime
    signature: str
    answer: Answer | None
    latency_ms: int

    @property
    def key(self) -> Key:
        return self.due.key


def fault_of(status: int) -> str:
    """Why an answer does not count as delivered; empty for those that do."""
    if 200 <= status < 300:
        return ""
    if 300 <= status < 400:
        return f"answered {status}: redirects are not followed"
    return f"answered {status}: it wants nothing any more" if status == GONE else f"answered {status}"


def words_for(problem: HttpError, *, within: float) -> str:
    """Why no answer came within that many seconds, in words."""
    match problem:
        case AnswerTimeout():
            return f"no whole answer within {within:.0f} s"
        case Disconnected():
            return f"the connection ended before the answer: {problem}"
        case BadAnswer():
            return f"what came back is not HTTP: {problem}"
        case BadAddress():
            return f"not sent: {problem}"
        case NotSent():
            return f"no connection: {problem}"
    return str(problem)


def verdict(due: Due, at: datetime, signature: str, answer: Answer | None, error: str, latency_ms: int) -> Try:
    """Delivered, dead, or pending with the time until the next try."""
    asked = retry_after(answer.header("retry-after")) if answer is not None and error else None
    gone = answer is not None and answer.status == GONE
    wait = None
    if error and not gone:
        wait = wait_before(due.number - due.tries_from, asked=asked, draw=random.random())
    status = "delivered" if not error else "dead" if wait is None else "pending"
    rest = min(asked, REST_AT_MOST) if asked else None
    return Try(due, status, wait, rest, error, at, signature, answer, latency_ms)


def kept_headers(answer: Answer | None) -> str | None:
    """The answer's headers as JSON, shortened; what a receiver means for a browser is not kept."""
    if answer is None:
        return None
    kept = {
        _clean(name)[:KEPT_HEADER]: _clean(value)[:KEPT_HEADER]
        for name, value in list(answer.headers.items())[:KEPT_HEADERS]
        if name != b"set-cookie"
    }
    return json.dumps(kept)


def kept_body(answer: Answer | None) -> str:
    return "" if answer is None else _clean(answer.body[:KEPT_BODY])


def _clean(text: bytes) -> str:
    return text.decode(errors="replace").replace("\0", "�")


def columns(batch: Sequence[Try]) -> dict[str, object]:
    """Parameters of the statement `settle`, as arrays with one element per delivery."""
    dues = [made.due for made in batch]
    return {
        "tenant": Bigints([d.tenant_id for d in dues]),
        "delivery": Bigints([d.delivery_id for d in dues]),
        "number": Bigints([d.number for d in dues]),
        "status": Texts([made.status for made in batch]),
        "wait": unless_empty([made.wait for made in batch]),
        "rest": unless_empty([made.rest for made in batch]),
        "answer": Bigints([made.answer.status if made.answer else 0 for made in batch]),
        "error": Texts([made.error[:300] for made in batch]),
        "signed_at": [made.signed_at for made in batch],
        "signature": Texts([made.signature[:500] for made in batch]),
        "headers": Texts([kept_headers(made.answer) for made in batch]),
        "body": Texts([kept_body(made.answer) for made in batch]),
        "latency": Bigints([made.latency_ms for made in batch]),
    }
