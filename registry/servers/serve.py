"""One web process on a listening socket that the supervisor opened and passes on.

uvicorn's own `--fd` takes the socket for a Unix one and leaves Nagle's algorithm on: an answer in two parts waits for
the client's delayed acknowledgement, 40 ms.
"""

import socket
import sys
from typing import Any

import uvicorn

from registry.edge.protocol import BoundedProtocol, BoundedSocket

GRACE = 5  # seconds for requests in flight when told to stop; the supervisor kills after 7
KEEP_ALIVE = 75  # seconds an idle connection stays; longer than the usual proxy's 60, so that the proxy closes first
FRAME_LIMIT = 1024 * 1024  # bytes of one websocket message


def configuration(application: Any, **more: Any) -> uvicorn.Config:
    """The uvicorn configuration of web processes; tests use the same one."""
    options: dict[str, Any] = {
        "loop": "uvloop",
        "http": BoundedProtocol,
        "ws": BoundedSocket,
        "ws_max_size": FRAME_LIMIT,
        "ws_per_message_deflate": False,  # messages are small, and a compressor would need most of a socket's memory
        "proxy_headers": False,  # registry.edge.proxies trusts only TRUSTED_PROXIES; uvicorn would trust every local process
        "access_log": False,
        "server_header": False,
        "log_config": None,  # Django has configured logging: one format for every line
        "log_level": "warning",
        "timeout_graceful_shutdown": GRACE,
        "timeout_keep_alive": KEEP_ALIVE,
        "workers": 1,
    }
    return uvicorn.Config(application, **options | more)


def main(handle: int, application: str) -> None:
    config = configuration(application)
    # Imported before uvicorn takes the signals, which it only looks at afterwards: a process that starts slowly would keep the port from the
    # next `up`, where this one's supervisor was killed.
    config.load()
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=handle)])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
