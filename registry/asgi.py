"""The ASGI application: HTTP to the lean handler, websockets to the apps' consumers, and the process's start and end."""

import os
from contextlib import AsyncExitStack

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry.settings")

import django
from django.apps import apps

if not apps.ready:  # a second time would only configure logging anew
    django.setup(set_prefix=False)

from channels.routing import URLRouter
from channels.sessions import CookieMiddleware, SessionMiddleware
from django.urls import re_path

from payments.api.socket_urls import websocket_urlpatterns
from payments.settle import inline
from queueing import broker, spill
from registry.data import database, identity, live, reach
from registry.edge import proxies, sockets
from registry.edge.handler import LeanHandler

identity.name()  # asked while nothing is served; a process that cannot know it does not start

http = LeanHandler()
routes = URLRouter([*websocket_urlpatterns, re_path("", sockets.nowhere)])  # type: ignore[arg-type]  # consumers are no views
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
    """Open what the process holds, close it in reverse. Servers without lifespan get both lazily."""
    async with AsyncExitStack() as stack:
        await receive()
        stack.push_async_callback(database.close)
        stack.push_async_callback(reach.close)
        stack.push_async_callback(live.close)
        stack.push_async_callback(spill.close)
        await spill.start()
        stack.push_async_callback(broker.close)
        stack.push_async_callback(inline.close)
        await inline.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})
