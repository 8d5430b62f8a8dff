"""The listening socket that all web processes share, and the readiness check."""

import argparse
import asyncio
import errno
import os
import socket
import time

from registry.servers.plan import ServicePlan, add_arguments

PROBE_EVERY = 0.05  # seconds between two looks at /health/ready
PORT_LIMIT = 3.0  # seconds for the kernel to free the port of a process that was killed
BACKLOG = 2048  # connections that wait while no web process accepts


class PortTaken(Exception):
    """Another program listens on the port."""


def listen(host: str, port: int) -> socket.socket:
    """Open the socket that all web processes share: connections wait in it while one restarts. Raises PortTaken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    deadline = time.monotonic() + PORT_LIMIT
    while True:
        try:
            return socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise PortTaken(f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}") from None
        time.sleep(PROBE_EVERY)


def refuse_taken_port(arguments: list[str]) -> None:
    """Check the port before anything starts. Raises PortTaken."""
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    wanted, _ = parser.parse_known_args(arguments)
    listen(wanted.host, wanted.port).close()


async def answers_ok(plan: ServicePlan, path: str) -> bool:
    """Whether GET `path` answers 200."""
    reader, writer = await asyncio.open_connection(plan.local_host, plan.port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {plan.host_header}\r\nConnection: close\r\n\r\n".encode())
        return b" 200 " in await reader.readline()
    finally:
        writer.close()
