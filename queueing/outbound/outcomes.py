"""Outcomes of attempts: delivered, dead, or pending with the time until the next attempt; and the part of an answer that the log keeps. No I/O."""

import json
import random
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from queueing.outbound.retries import GONE, REST_AT_MOST, retry_after, wait_before
from queueing.work.keyed import Key
from registry.data.arrays import Bigints, Texts, unless_empty
from registry.http.client import Answer, AnswerTimeout, BadAddress, BadAnswer, Disconnected, HttpError, NotSent

KEPT_BODY = 2 * 1024  # bytes of an answer in the log
KEPT_HEADERS, KEPT_HEADER = 20, 200  # headers of an answer in the log, and characters of each


class DeliveryClaim(NamedTuple):
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
    callback_url: str  # empty: it goes to the endpoint's address
    subject: UUID | None  # what its event is about, such as a payment's correlation id

    @property
    def key(self) -> Key:
        return self.tenant_id, self.delivery_id


class DeliverySettlement(NamedTuple):
    """The outcome of one attempt."""

    claim: DeliveryClaim
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
        return self.claim.key


def fault_of(status: int) -> str:
    """Why an answer does not count as delivered; empty for those that do."""
    if 200 <= status < 300:
        return ""
    if 300 <= status < 400:
        return f"answered {status}: redirects are not followed"
    return f"answered {status}: the receiver accepts no more messages" if status == GONE else f"answered {status}"


def words_for(problem: HttpError, *, within: float) -> str:
    """Why no answer came within that many seconds, in words."""
    match problem:
        case AnswerTimeout():
            return f"no whole answer within {within:.0f} s"
        case Disconnected():
            return f"the connection ended before the answer: {problem}"
        case BadAnswer():
            return f"the response is not HTTP: {problem}"
        case BadAddress():
            return f"not sent: {problem}"
        case NotSent():
            return f"no connection: {problem}"
    return str(problem)


def settlement_of(
    claim: DeliveryClaim, at: datetime, signature: str, answer: Answer | None, error: str, latency_ms: int
) -> DeliverySettlement:
    """Delivered, dead, or pending with the time until the next try."""
    asked = retry_after(answer.header("retry-after")) if answer is not None and error else None
    gone = answer is not None and answer.status == GONE
    wait = None
    if error and not gone:
        wait = wait_before(claim.number - claim.tries_from, asked=asked, draw=random.random())
    status = "delivered" if not error else "dead" if wait is None else "pending"
    rest = min(asked, REST_AT_MOST) if asked else None
    return DeliverySettlement(claim, status, wait, rest, error, at, signature, answer, latency_ms)


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


def columns(batch: Sequence[DeliverySettlement]) -> dict[str, object]:
    """Parameters of the statement `settle`, as arrays with one element per delivery."""
    claims = [s.claim for s in batch]
    return {
        "tenant": Bigints([c.tenant_id for c in claims]),
        "delivery": Bigints([c.delivery_id for c in claims]),
        "number": Bigints([c.number for c in claims]),
        "status": Texts([s.status for s in batch]),
        "wait": unless_empty([s.wait for s in batch]),
        "rest": unless_empty([s.rest for s in batch]),
        "answer": Bigints([s.answer.status if s.answer else 0 for s in batch]),
        "error": Texts([s.error[:300] for s in batch]),
        "signed_at": [s.signed_at for s in batch],
        "signature": Texts([s.signature[:500] for s in batch]),
        "headers": Texts([kept_headers(s.answer) for s in batch]),
        "body": Texts([kept_body(s.answer) for s in batch]),
        "latency": Bigints([s.latency_ms for s in batch]),
    }
