"""What all addresses of the message queue share: who asks, bodies and queries read strictly, errors, CORS."""

import math
import re
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import wraps
from typing import Any

import msgspec
from django.conf import settings
from django.http import HttpRequest, HttpResponse

from queueing.broker.errors import BadRequest
from queueing.broker.models import NAME_LENGTH
from registry.edge import nulls
from registry.edge.api import json_response, problem_response
from registry.edge.handler import View, by_method, lean
from registry.errors import Invalid, Problem
from registry.tenants import access

SHARED = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "*",
}  # with every answer and every problem
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, DELETE, OPTIONS",
    "Access-Control-Max-Age": "86400",
    "Vary": "Access-Control-Request-Headers",
}
HEADERS = "Authorization, Content-Type"  # that a browser may send, and whatever else it asks for
HEADER_NAMES = re.compile(r"[A-Za-z0-9_, -]{1,1000}")

type Endpoint = Callable[..., Coroutine[Any, Any, HttpResponse]]


def queue_problem(error: Problem) -> HttpResponse:
    """Problem details (RFC 9457) that also have the `error` which clients of the queue's contract read."""
    return _shared(problem_response(error, error=error.detail))


def _shared(response: HttpResponse, more: dict[str, str] | None = None) -> HttpResponse:
    """Pages of any site may read it. No cookies count here: they need a key like everybody else."""
    for name, value in (SHARED | (more or {})).items():
        response[name] = value
    return response


def endpoint(scope: str, *, max_body: int | None = None) -> Callable[[Endpoint], Endpoint]:
    """An address of the queue's API for keys with `scope`; the view gets the request and whom it acts for."""

    def mark(view: Endpoint) -> Endpoint:
        @wraps(view)
        async def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            principal, headers = await access.authorize(request, scope)
            return _shared(await view(request, principal, *args, **kwargs), headers)

        return lean(answer, max_body=max_body or settings.MAX_BODY)

    return mark


def route(**views: View) -> View:
    """One address of the queue's API, a view per method; browsers of any site may ask whether they may ask."""
    dispatch = by_method(OPTIONS=_preflight, **views)
    dispatch.problem = queue_problem  # type: ignore[attr-defined]
    return dispatch


async def _preflight(request: HttpRequest, *_args: Any, **_kwargs: Any) -> HttpResponse:
    wanted = request.headers.get("Access-Control-Request-Headers", "")
    allowed = f"{HEADERS}, {wanted}" if HEADER_NAMES.fullmatch(wanted) else HEADERS
    return _shared(HttpResponse(status=204), {**PREFLIGHT, "Access-Control-Allow-Headers": allowed})


def answer(data: Any, status: int = 200) -> HttpResponse:
    return json_response(data, status=status)


# -- Reading ---------------------------------------------------------------------------------------------


def read[S](request: HttpRequest, decoder: msgspec.json.Decoder[S], *, empty: S | None = None) -> S:
    """The body by its decoder. Raises BadRequest (400), Invalid (422) for fields of the wrong type."""
    body = request.body
    if not body:
        if empty is not None:
            return empty
        raise BadRequest("Empty request body")
    try:
        body.decode()
        return nulls.decode(decoder, body)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"Invalid JSON: {str(error)[:200] or 'nested too deeply'}") from None


def check_name(what: str, name: str) -> str:
    """`name` where it can be one of a queue, partition, group or transaction. Raises BadRequest (400)."""
    if not name:
        raise BadRequest(f"{what} must not be empty")
    if len(name) > NAME_LENGTH:
        raise BadRequest(f"{what} has {len(name)} characters; at most {NAME_LENGTH}")
    if "\0" in name:
        raise BadRequest(f"{what} contains the character NUL, which cannot be stored")
    return name


def flag(request: HttpRequest, name: str) -> bool:
    """A query parameter that is true or 1, false or 0, or absent. Raises Invalid (422)."""
    value = request.GET.get(name, "").lower()
    if value not in ("", "0", "1", "false", "true"):
        raise _bad(name, "wants true or false")
    return value in ("1", "true")


def whole(request: HttpRequest, name: str, default: int, *, least: int = 0, most: int = 10_000) -> int:
    """A query parameter that is a whole number of at least `least`; above `most` it counts as that. Raises Invalid (422)."""
    value = request.GET.get(name, "")
    if not value:
        return default
    if not (value.isascii() and value.isdigit()) or int(value[:18]) < least:
        raise _bad(name, f"wants a whole number of at least {least}")
    return min(int(value[:18]), most)


def moment(request: HttpRequest, name: str) -> datetime | None:
    """A query parameter that is an ISO 8601 time, UTC where it has no zone; None without. Raises Invalid (422)."""
    value = request.GET.get(name, "")
    if not value:
        return None
    try:
        return parse_moment(value)
    except ValueError:
        raise _bad(name, "wants an ISO 8601 time such as 2026-01-02T03:04:05Z") from None


def parse_moment(text: str) -> datetime:
    """ISO 8601, UTC where no zone is named. Raises ValueError."""
    at = datetime.fromisoformat(text.replace(" ", "+"))  # a + that nobody encoded
    try:
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError as error:  # the first or last hours that there are, in another zone
        raise ValueError(text) from error
    if not math.isfinite(at.timestamp()):
        raise ValueError(text)
    return at


def _bad(name: str, message: str) -> Invalid:
    return Invalid(f"{name} {message}", errors=[{"field": name, "message": message}])
