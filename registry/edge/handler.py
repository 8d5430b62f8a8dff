"""The ASGI handler: Django's, with a fast path for the API that uses no threads, signals or middleware.

Views marked `@lean` (the API) run on the event loop alone: the body is in memory, and no task waits for a disconnect. All
other requests (pages, admin) are handled by Django's own handler.
"""

import asyncio
import io
import logging
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, ClassVar

from asgiref.sync import ThreadSensitiveContext
from django.conf import settings
from django.core.exceptions import SuspiciousOperation
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.http import Http404, HttpRequest, QueryDict
from django.http.response import HttpResponseBase
from django.urls import Resolver404, ResolverMatch, get_resolver
from django.utils.functional import cached_property

from registry.data import database
from registry.data.cache import Bounded
from registry.edge import heads, request_log
from registry.edge.api import problem_response
from registry.errors import BodyTimeout, Malformed, MethodNotAllowed, NotFound, Problem, TooLarge
from registry.telemetry import context, metrics, traces

log = logging.getLogger(__name__)

PAGE_BODY = 256 * 1024  # bytes of a form
BODY_TIMEOUT = 20  # seconds for a whole body to arrive; slower is an attack or a broken connection
RECENT, RECENT_PATH = 5_000, 500  # routes with variables that are kept resolved, and characters of their paths
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}\Z")  # of the caller, passed on; anything else is replaced

_NOSNIFF = (b"x-content-type-options", b"nosniff")

type View = Callable[..., Coroutine[Any, Any, HttpResponseBase]]


def lean[V: View](
    view: V | None = None, *, max_body: int | None = None, admit: Callable[[dict], Awaitable[None]] | None = None
) -> Any:
    """Mark an async view that needs neither middleware nor threads. `max_body`: bytes, else REGISTRY_MAX_BODY. A larger
    `max_body` needs `admit`, which authenticates the head of a request before its body is read, or raises a Problem."""

    limit = max_body or settings.MAX_BODY
    if limit > settings.MAX_BODY and admit is None:
        raise TypeError("a view with a larger body than REGISTRY_MAX_BODY needs `admit`")

    def mark(view: V) -> V:
        view.lean = True  # type: ignore[attr-defined]
        view.admit = admit  # type: ignore[attr-defined]
        view.max_body = limit  # type: ignore[attr-defined]
        return view

    return mark(view) if view else mark


class ClientGone(Exception):
    """The client hung up before its request was complete."""


class LeanRequest(ASGIRequest):
    """A request whose body is in memory. What Django makes of its head is made when it is read: hot routes read little of it."""

    def __init__(self, scope: dict, body: bytes, match: ResolverMatch, receive: Callable) -> None:
        self.scope, self.path, self.receive = scope, scope["path"], receive
        self.method = "GET" if scope["method"] == "HEAD" else scope["method"].upper()  # `answer` leaves the body out
        self._body = body
        self.resolver_match = match

    def __getattr__(self, name: str) -> Any:
        if "META" in self.__dict__:
            raise AttributeError(name)
        method, match = self.method, self.resolver_match
        super().__init__(self.scope, io.BytesIO(self._body))
        self.method, self.resolver_match = method, match
        return getattr(self, name)

    @cached_property
    def GET(self) -> QueryDict:  # type: ignore[override]
        return QueryDict(self.scope.get("query_string", b"").decode())


class LeanHandler(ASGIHandler):
    """The one HTTP application of the service."""

    counters: ClassVar[dict[tuple[str, int], Any]] = {}

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        rid = given if REQUEST_ID.match(given) else b"%016x" % random.getrandbits(64)
        context.REQUEST.set(rid.decode())
        match = _resolved(scope["path"])
        if fault := heads.fault_of(scope):
            words = getattr(match and match.func, "problem", problem_response)
            await self.answer(words(fault), scope, receive, send, rid)
        elif match is not None and getattr(match.func, "lean", False):
            await self.serve_lean(match, scope, receive, send, rid)
        elif match is None and _is_program(scope):
            await self.answer(problem_response(NotFound()), scope, receive, send, rid)
        else:
            async with ThreadSensitiveContext():
                try:
                    await self.serve_page(scope, receive, send, rid)
                finally:
                    await database.release()

    async def serve_page(self, scope: dict, receive: Callable, send: Callable, rid: bytes) -> None:
        """Handle the request as Django does, after reading the whole body: a form is small, and its time is limited."""
        try:
            body = await read_body(scope, receive, PAGE_BODY)
        except ClientGone:
            return
        except Problem as error:
            await self.answer(problem_response(error), scope, receive, send, rid)
            return
        await self.handle(scope, _replay(body, receive), _with_request_id(send, rid))

    async def serve_lean(self, match: Any, scope: dict, receive: Callable, send: Callable, rid: bytes) -> None:
        began = time.perf_counter()
        context.CALLER.set(None)
        context.TRACED.set(())  # pipelined requests inherit the context of the one before
        fault: Problem | None = None
        try:
            response = await self.respond(match, scope, receive)
            if response.status_code == 405 and response.get("Content-Type", "").startswith("text/"):
                fault = MethodNotAllowed(headers={"Allow": response.get("Allow", "")})
        except ClientGone:
            return
        except Problem as error:
            fault = error
        except SuspiciousOperation as error:  # a foreign Host, too many parameters
            fault = Malformed(str(error)[:200])
        except (Http404, UnicodeDecodeError):
            fault = NotFound()
        except Exception as error:
            fault = database.unavailable(error)
            if fault is None:
                log.exception("unhandled error", extra={"path": scope["path"]})
                fault = Problem("something went wrong here; it has been logged under this request id")
        finally:
            await database.release()
        if fault is not None:
            # The queue's problems have one more member.
            response = getattr(match.func, "problem", problem_response)(fault)
        request_log.record(
            method=scope["method"],
            path=scope["path"],
            status=response.status_code,
            code=fault.type.rpartition(":")[2] if fault else "",
            began=began,
            request_id=rid,
        )
        if spans := context.TRACED.get():
            traces.record_request(scope, spans, route=match.route, status=response.status_code, began=began)
        await self.answer(response, scope, receive, send, rid)

    async def respond(self, match: Any, scope: dict, receive: Callable) -> HttpResponseBase:
        """The view's response. Raises what the view raises, ClientGone, and the problems of `read_body`."""
        limit = match.func.max_body
        if scope["method"] == "OPTIONS":  # a browser's preflight has neither a key nor a body
            limit = min(limit, settings.MAX_BODY)
        elif limit > settings.MAX_BODY and _may_be_large(
            scope
        ):  # an unauthorized caller must not make us hold a large body
            await match.func.admit(scope)
        body = await read_body(scope, receive, limit)
        return await match.func(LeanRequest(scope, body, match, receive), *match.args, **match.kwargs)

    async def answer(
        self, response: HttpResponseBase, scope: dict, receive: Callable, send: Callable, rid: bytes
    ) -> None:
        self.count(scope["method"], response.status_code)
        if response.status_code >= 500 and not scope["path"].startswith("/health"):
            metrics.REQUESTS_FAILED.inc()
        if response.streaming:
            response["X-Request-Id"], response["X-Content-Type-Options"] = rid.decode(), "nosniff"
            if scope["method"] == "HEAD":
                response.streaming_content = _nothing()  # type: ignore[attr-defined]
            await until_disconnect(receive, self.send_response(response, send))
            return
        content: bytes = response.content  # type: ignore[attr-defined]  # only streams have none
        headers = [(name.encode("latin1"), value.encode("latin1")) for name, value in response.items()]
        headers += (b"x-request-id", rid), _NOSNIFF, (b"content-length", b"%d" % len(content))
        headers += getattr(response, "fixed", ())  # headers of all responses of a route, which need no encoding
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": content if scope["method"] != "HEAD" else b""})

    def count(self, method: str, status: int) -> None:
        counter = self.counters.get((method, status))
        if counter is None:
            known = method if method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS") else "other"
            counter = self.counters[method, status] = metrics.REQUESTS.labels(known, str(status))
        counter.inc()


_matches: dict[str, ResolverMatch] = {}  # of routes without variables, so there are few
_recent: Bounded[str, ResolverMatch] = Bounded(RECENT)  # of routes with variables, such as pops of a queue


def _resolved(path: str) -> ResolverMatch | None:
    """The route of a path. Django tries one pattern after the other, which costs a hot route a tenth of its time."""
    match = _matches.get(path) or _recent.get(path)
    if match is None:
        try:
            match = get_resolver().resolve(path)
        except Resolver404:
            return None
        if not match.args and not match.kwargs:
            _matches[path] = match
        elif len(path) <= RECENT_PATH:
            _recent.put(path, match)
    return match


def _may_be_large(scope: dict) -> bool:
    """Whether the body may exceed REGISTRY_MAX_BODY: its length says so, or it comes in chunks."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return not value.isdigit() or int(value) > settings.MAX_BODY
    return True


def _is_program(scope: dict) -> bool:
    """Whether the client accepts no HTML: then an unknown address is answered with problem details, not with a page."""
    return "text/html" not in heads.value_of(scope, b"accept")


def _replay(body: bytes, receive: Callable) -> Callable:
    """A `receive` that gives the body once more, and then waits for the client to hang up."""
    first = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> dict:
        return first.pop() if first else await receive()

    return receiving


async def _nothing() -> AsyncIterator[bytes]:
    nothing: tuple[bytes, ...] = ()
    for content in nothing:
        yield content


def _with_request_id(send: Callable, rid: bytes) -> Callable:
    async def sending(message: dict) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"x-request-id", rid)]
        await send(message)

    return sending


async def read_body(scope: dict, receive: Callable, limit: int) -> bytes:
    """The whole body. Raises TooLarge (413) as soon as that is known, UnsupportedCoding (415), BodyTimeout (408), ClientGone."""
    for name, value in scope["headers"]:
        if name == b"content-length" and (not value.isdigit() or int(value) > limit):
            raise TooLarge(f"at most {limit} bytes", headers={"Connection": "close"})
        if name == b"content-encoding":
            heads.refuse_coding(value)
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            if not message.get("more_body"):
                return _checked(message.get("body", b""), limit)
            return await _rest_of_body(message, receive, limit)
    except TimeoutError:
        raise BodyTimeout(f"no complete body within {BODY_TIMEOUT} s", headers={"Connection": "close"}) from None


async def _rest_of_body(message: dict, receive: Callable, limit: int) -> bytes:
    parts, size = [], 0
    while True:
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise TooLarge(f"at most {limit} bytes", headers={"Connection": "close"})
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone


def _checked(body: bytes, limit: int) -> bytes:
    if len(body) > limit:
        raise TooLarge(f"at most {limit} bytes", headers={"Connection": "close"})
    return body


async def until_disconnect[T](receive: Callable, work: Awaitable[T]) -> T | None:
    """Run `work`, for long polls and streams, and cancel it when the client hangs up; None then."""

    async def hung_up() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def released() -> T:
        try:
            return await work
        finally:
            await database.release()  # what the ORM holds in this task, only this task can give back

    working, waiting = asyncio.ensure_future(released()), asyncio.ensure_future(hung_up())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, waiting):
            task.cancel()
        await asyncio.gather(working, waiting, return_exceptions=True)


def by_method(**views: View) -> View:
    """A view that dispatches by method: `by_method(POST=accept, GET=browse)`. The largest body limit counts, with its `admit`."""

    async def dispatch(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        view = views.get(request.method or "") or (views.get("GET") if request.method == "HEAD" else None)
        if view is None:
            raise MethodNotAllowed(f"allowed: {', '.join(sorted(views))}", headers={"Allow": ", ".join(sorted(views))})
        return await view(request, *args, **kwargs)

    largest = max(views.values(), key=lambda view: getattr(view, "max_body", settings.MAX_BODY))
    max_body, admit = getattr(largest, "max_body", None), getattr(largest, "admit", None)
    return lean(dispatch, max_body=max_body, admit=admit)
