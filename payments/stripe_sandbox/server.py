"""Serves the sandbox with uvicorn, on a port of its own."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from uvicorn.server import ServerState

from payments.stripe_sandbox.app import Sandbox
from registry.edge.protocol import BoundedProtocol

STOP_TIMEOUT = 1.0  # seconds that requests under way have left


class _CanHangUp(BoundedProtocol):
    """Lets the application end a connection without an answer, which ASGI has no word for."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["sandbox.hang_up"] = self.transport.abort  # type: ignore[typeddict-unknown-key]


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Raises OSError where the port is taken."""
    return socket.create_server((host, port), backlog=256)


@asynccontextmanager
async def serving(sandbox: Sandbox, listener: socket.socket) -> AsyncIterator[str]:
    """The sandbox's address, for as long as the block runs, in this loop."""
    config = uvicorn.Config(sandbox, ws="none", lifespan="off", proxy_headers=False, log_config=None, access_log=False)  # type: ignore[arg-type]
    config.load()
    state = ServerState()
    sandbox.state.url = "http://{}:{}".format(*listener.getsockname()[:2])
    async with sandbox:
        server = await asyncio.get_running_loop().create_server(
            lambda: _CanHangUp(config=config, server_state=state, app_state={}), sock=listener
        )
        try:
            yield sandbox.state.url
        finally:
            server.close()
            await _finish(state)


async def _finish(state: ServerState) -> None:
    """Requests under way get a moment; connections that idle are closed at once."""
    for connection in list(state.connections):
        connection.shutdown()
    if state.tasks:
        await asyncio.wait(state.tasks, timeout=STOP_TIMEOUT)
    for task in state.tasks:
        task.cancel()
