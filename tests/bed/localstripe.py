"""localstripe, an independent implementation of Stripe, as a child process: a second opinion on the wire format and signatures.

What it lacks, ours plays (tests/bed/stripe.py): idempotency keys, disputes, Connect, retried webhooks, unknown parameters in
Stripe's words, confirming with a method, return URLs, listing of failures, faults. `python -m tests.bed.localstripe` runs it.
"""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registry.servers.child import dying_with

STOP_LIMIT = 5.0  # seconds from SIGTERM to SIGKILL
SECRET_KEY = "sk_test_localstripe"
ROOT = Path(__file__).parents[2]


@contextmanager
def localstripe() -> Iterator[str]:
    """Its address. It starts in a second or two: once per session is enough, its objects do not disturb each other."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=dying_with(os.getpid()),
    )
    assert process.stdout
    try:
        line = process.stdout.readline()
        if not line.startswith("ready "):
            raise RuntimeError(f"localstripe did not start: {line!r}")
        yield line.split()[1]
    finally:
        process.terminate()
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


async def _serve() -> None:
    """Its own `start` listens on every address and keeps its objects in a file of /tmp; here neither is wanted."""
    from aiohttp import web
    from localstripe import resources, server

    resources.Store.dump_to_disk = lambda self: None
    listener = socket.create_server(("127.0.0.1", 0))
    runner = web.AppRunner(server.app, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    print(f"ready http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve())
