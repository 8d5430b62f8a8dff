"""Websocket handshakes: those with a faulty head or an unknown address are refused before a consumer sees them."""

import random
from collections.abc import Awaitable, Callable
from typing import Any

from registry.edge import heads
from registry.edge.api import problem_response
from registry.errors import NotFound, Problem

type Application = Callable[[dict, Callable, Callable], Awaitable[Any]]


def checked(application: Application) -> Application:
    """`application` for handshakes with a valid head; the others get the same problem details as HTTP requests."""

    async def check(scope: dict, receive: Callable, send: Callable) -> None:
        if fault := heads.fault_of(scope):
            await _refuse(fault, scope, send)
        else:
            await application(scope, receive, send)

    return check


async def nowhere(scope: dict, _receive: Callable, send: Callable) -> None:
    """The consumer of unknown addresses: 404."""
    await _refuse(NotFound(), scope, send)


async def _refuse(fault: Problem, scope: dict, send: Callable) -> None:
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close"})  # the server answers 403
        return
    response = problem_response(fault)
    headers = [(name.encode(), value.encode()) for name, value in response.items()]
    headers.append((b"x-request-id", b"%016x" % random.getrandbits(64)))
    await send({"type": "websocket.http.response.start", "status": fault.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": response.content})
