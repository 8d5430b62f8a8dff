"""Serves the sandbox with uvicorn on its own port."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from sandbox.app import Sandbox

STOP_TIMEOUT = 1.0  # seconds for requests in progress at the end


def _with_hang_up(protocol: type[HttpToolsProtocol]) -> type[HttpToolsProtocol]:
    """The protocol class, extended so that the application can close a connection without a response, which ASGI does not offer."""

    class CanHangUp(protocol):  # type: ignore[valid-type, misc]
        def on_message_begin(self) -> None:
            super().on_message_begin()
            self.scope["sandbox.hang_up"] = self.transport.abort

    return CanHangUp


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A listening socket. Raises OSError if the port is taken."""
    listener = socket.create_server((host, port), backlog=256)
    # Read the protocol from the kernel: asyncio switches Nagle's algorithm off only where the socket names TCP. With it, an
    # answer in two parts waits for the client's delayed acknowledgement, 40 ms.
    return socket.socket(fileno=listener.detach())


@asynccontextmanager
async def serving(
    sandbox: Sandbox, listener: socket.socket, *, protocol: type[HttpToolsProtocol] = HttpToolsProtocol
) -> AsyncIterator[str]:
    """Serve the sandbox in this loop while the block runs; gives its address. `protocol` may limit heads and bodies."""
    config = uvicorn.Config(sandbox, ws="none", lifespan="off", proxy_headers=False, log_config=None, access_log=False)  # type: ignore[arg-type]
    config.load()
    state, served = ServerState(), _with_hang_up(protocol)
    sandbox.state.url = "http://{}:{}".format(*listener.getsockname()[:2])
    async with sandbox:
        server = await asyncio.get_running_loop().create_server(
            lambda: served(config=config, server_state=state, app_state={}), sock=listener
        )
        try:
            yield sandbox.state.url
        finally:
            server.close()
            await _finish(state)


async def _finish(state: ServerState) -> None:
    """Wait briefly for requests in progress; close idle connections at once."""
    for connection in list(state.connections):
        connection.shutdown()
    if state.tasks:
        await asyncio.wait(state.tasks, timeout=STOP_TIMEOUT)
    for task in state.tasks:
        task.cancel()
