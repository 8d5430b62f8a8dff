"""Responses as values or errors: decoding of bodies, problem details, `Retry-After`."""

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import msgspec

from registry_client import errors
from registry_client.errors import ProblemDetails, ResponseError, UnexpectedResponse


class QueueError(msgspec.Struct, frozen=True):
    """The error body of the queue's contract, where it is no problem details."""

    error: str = ""


def decode[T](response: httpx2.Response, kind: type[T]) -> T:
    """The JSON body as `kind`. Raises UnexpectedResponse."""
    return decode_bytes(response.content, kind)


def decode_bytes[T](body: bytes | str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnexpectedResponse(f"not the documented body: {error}") from error


def error_of(response: httpx2.Response) -> ResponseError | None:
    """The error of a response that was read; None for a successful one."""
    status = response.status_code
    if 200 <= status < 300:
        return None
    request_id = response.headers.get("X-Request-Id", "")
    return errors.class_of(status)(_problem(response), request_id, retry_after(response.headers.get("Retry-After")))


def _problem(response: httpx2.Response) -> ProblemDetails:
    """The problem details; made up from the status where the body has none, such as that of a proxy."""
    try:
        problem = msgspec.json.decode(response.content, type=ProblemDetails)
        detail = problem.detail or msgspec.json.decode(response.content, type=QueueError).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem, detail = ProblemDetails(), response.text[:200]
    title = problem.title or response.reason_phrase
    return msgspec.structs.replace(problem, status=response.status_code, detail=detail, title=title)


def retry_after(header: str | None, now: datetime | None = None) -> float | None:
    """Seconds of a `Retry-After` header: a number, or a date (RFC 9110). None for a missing or malformed one."""
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())


def encode(body: Any) -> bytes:
    """JSON; decimals as text, so that no digit is lost. Raises ValueError for a number that JSON lacks, which would be sent as null."""
    content = msgspec.json.encode(body)
    if b"null" in content and _has_no_number(msgspec.to_builtins(body)):
        raise ValueError("a number is NaN or infinite: JSON has none such")
    return content


def _has_no_number(value: Any) -> bool:
    """Whether a float in it is NaN or infinite."""
    if isinstance(value, dict):
        return any(map(_has_no_number, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_no_number, value))
    return isinstance(value, float) and not math.isfinite(value)
