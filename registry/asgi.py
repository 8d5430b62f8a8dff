"""The ASGI application: HTTP to the lean handler, websockets to the apps' consumers, and the process's start and end."""

import os
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
from registry.data import garbage, identity, loop_watch
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
            await lifespan(receive, send)


async def lifespan(receive, send) -> None:
    """Start tracing, the spill, the inline drain and the evaluation of alerts; close everything that the process opened at its end."""
    await receive()
    try:
        loop_watch.watches.get()
        await sampling.start()
        await spill.start()
        await inline.start()
        evaluator.start()
        with garbage.calm():
            await send({"type": "lifespan.startup.complete"})
            await receive()
    finally:
        await end_loop()
    await send({"type": "lifespan.shutdown.complete"})
