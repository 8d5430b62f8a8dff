"""One web process on a listening socket it was handed; the supervisor owns the socket and starts these.

uvicorn's own `--fd` takes the socket for a Unix one and leaves Nagle's algorithm on: an answer in two parts waits for
the client's delayed acknowledgement, 40 ms.
"""

import asyncio
import socket
import sys
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

GRACE = 5  # seconds for requests in flight when told to stop; the supervisor kills after 7
KEEP_ALIVE = 75  # seconds an idle connection stays; longer than the usual proxy's 60, so that the proxy closes first
FRAME_LIMIT = 1024 * 1024  # bytes of one websocket message
HEAD_TIMEOUT = 10.0  # seconds for a request line and its headers; uvicorn waits for ever. The body's limit is handler's


class PunctualProtocol(HttpToolsProtocol):
    """Hangs up on clients whose request line and headers do not arrive in time."""

    head_timer: asyncio.TimerHandle | None = None
    in_head = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.head_timer = self.loop.call_later(HEAD_TIMEOUT, transport.close)

    def on_message_begin(self) -> None:
        self.in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self.in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.in_head:
            if self.head_timer is None:
                self.head_timer = self.loop.call_later(HEAD_TIMEOUT, self.transport.close)
        elif self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
        super().connection_lost(exc)


def main(handle: int) -> None:
    config = uvicorn.Config(
        "registry.asgi:application",
        loop="uvloop",
        http=PunctualProtocol,
        ws="websockets-sansio",
        ws_max_size=FRAME_LIMIT,
        ws_per_message_deflate=False,  # messages are small; a compressor per socket would be the most of its memory
        access_log=False,
        server_header=False,
        log_config=None,  # Django has configured logging: one format for every line
        log_level="warning",
        timeout_graceful_shutdown=GRACE,
        timeout_keep_alive=KEEP_ALIVE,
        workers=1,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=handle)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
