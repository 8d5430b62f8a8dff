"""The ASGI applications: HTTP to the lean handler, websockets to the apps' consumers, and the process's start and end.

`application` is what web processes serve, `listener` what a host without web processes serves: its health and its metrics.
"""

import os
from collections.abc import Awaitable, Callable
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry.settings")

import django
from django.apps import apps

if not apps.ready:  # a second setup would only configure logging again
    django.setup(set_prefix=False)

from channels.routing import URLRouter
from channels.sessions import CookieMiddleware, SessionMiddleware
from django.urls import re_path

from payments.api import socket_urls
from payments.settle import inline
from queueing import spill
from queueing.jobs import urls as jobs
from registry.data import clock_watch, garbage, identity, loop_watch
from registry.data.loop import end_loop
from registry.edge import proxies, sockets
from registry.edge.handler import LeanHandler
from registry.operators.alerts import evaluator
from registry.tenants import sampling

identity.name()  # before requests are served: a process without the name must not start

http = LeanHandler()
websockets: list[Any] = [*socket_urls.websocket_urlpatterns, *jobs.websocket_urlpatterns, re_path("", sockets.nowhere)]  # type: ignore[arg-type]  # consumers are no views
routes = URLRouter(websockets)
websocket = sockets.checked(CookieMiddleware(SessionMiddleware(routes)))


async def application(scope: dict, receive, send) -> None:
    if scope["type"] != "lifespan":
        proxies.believe(scope)
    match scope["type"]:
        case "http":
            await http(scope, receive, send)
        case "websocket":
            await websocket(scope, receive, send)
        case "lifespan":
            await lifespan(_start, receive, send)


LISTENED = frozenset({"/health", "/health/live", "/health/ready", "/metrics"})


async def listener(scope: dict, receive, send) -> None:
    """Health and metrics only: a host without web processes has no pages and accepts no payments."""
    match scope["type"]:
        case "lifespan":
            await lifespan(_start_listening, receive, send)
        case "http":
            proxies.believe(scope)
            await http(scope if scope["path"] in LISTENED else {**scope, **NOWHERE}, receive, send)
        case "websocket":
            await sockets.nowhere(scope, receive, send)


NOWHERE = {"path": "/not-served-by-this-host", "raw_path": b"/not-served-by-this-host"}  # its answer is 404


async def _start() -> None:
    """Tracing, the spill, the inline drain, and the evaluation of alerts."""
    await sampling.start()
    await spill.start()
    await inline.start()
    evaluator.start()


async def _start_listening() -> None:
    """Workers of the host have their own tracing and spill."""
    evaluator.start()


async def lifespan(start: Callable[[], Awaitable[None]], receive, send) -> None:
    """Start what the process runs beside its requests; close everything that it opened at its end."""
    await receive()
    try:
        loop_watch.watches.get()
        clock_watch.watches.get()
        await start()
        with garbage.calm():
            await send({"type": "lifespan.startup.complete"})
            await receive()
    finally:
        await end_loop()
    await send({"type": "lifespan.shutdown.complete"})
