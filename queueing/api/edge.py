"""Common parts of the message queue's routes: authorization, bodies, query parameters, errors, CORS."""

import re
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import msgspec
from django.http import HttpRequest, HttpResponse

from queueing.broker.errors import BadRequest
from queueing.models.broker import NAME_LENGTH
from registry.edge import nulls
from registry.edge.api import json_response, problem_response
from registry.edge.handler import View, by_method, lean
from registry.edge.parameters import Parameter, Parameters
from registry.errors import Invalid, Problem
from registry.tenants import access

SHARED = (  # of every response
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"*"),
)
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, DELETE, OPTIONS",
    "Access-Control-Max-Age": "86400",
    "Vary": "Access-Control-Request-Headers",
}
HEADERS = "Authorization, Content-Type"  # that a browser may send, beside those that it asks for
HEADER_NAMES = re.compile(r"[A-Za-z0-9_, -]{1,1000}")

type Endpoint = Callable[..., Coroutine[Any, Any, HttpResponse]]


def queue_problem(error: Problem) -> HttpResponse:
    """Problem details (RFC 9457) that also have the `error` which clients of the queue's contract read."""
    if isinstance(error, Invalid) and error.errors:  # these clients read one text, not a list of fields
        error.detail = "{field} {message}".format_map(error.errors[0])
    return _shared(problem_response(error, error=error.detail))


def _shared(response: HttpResponse, more: dict[str, str] | None = None) -> HttpResponse:
    """`response` with CORS headers: pages of any site may read it. Cookies do not count here, so they need a key."""
    response.fixed = SHARED  # type: ignore[attr-defined]
    for name, value in (more or {}).items():
        response[name] = value
    return response


def endpoint(scope: str, *, max_body: int | None = None) -> Callable[[Endpoint], Endpoint]:
    """A view of the queue's API for keys with `scope`; it gets the request and the principal."""

    def mark(view: Endpoint) -> Endpoint:
        @wraps(view)
        async def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            principal, headers = await access.authorize(request, scope)
            return _shared(await view(request, principal, *args, **kwargs), headers)

        return lean(answer, max_body=max_body, admit=access.require_key)

    return mark


def route(**views: View) -> View:
    """A route of the queue's API, with a view per method; it answers CORS preflights of any site."""
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
    """`name`, checked as the name of a queue, partition, group or transaction. Raises BadRequest (400)."""
    if 0 < len(name) <= NAME_LENGTH and "\0" not in name:
        return name
    if not name:
        raise BadRequest(f"{what} must not be empty")
    if len(name) > NAME_LENGTH:
        raise BadRequest(f"{what} has {len(name)} characters; at most {NAME_LENGTH}")
    raise BadRequest(f"{what} contains the character NUL, which cannot be stored")


# -- Query parameters ------------------------------------------------------------------------------------


def refuse(name: str, message: str) -> BadRequest:
    """The refusal (400) of a query parameter for which the contract wants that status."""
    return BadRequest(f"{name} {message}")


NAME = Parameter[str]({"type": "string", "maxLength": NAME_LENGTH}, check_name, "")  # of a queue, group and the like
WHICH: Parameters = {"queue": NAME, "namespace": NAME, "task": NAME}
LISTED: Parameters = {**WHICH, "ns": NAME}  # ns: the same as namespace
GROUP: Parameters = {"consumerGroup": NAME}
PARTITION: Parameters = {"partition": NAME}
