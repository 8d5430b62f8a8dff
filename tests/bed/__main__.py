"""`python -m tests.bed PORT [--fee 0.05] [--host 127.0.0.1]`: one processor as a process; prints `ready http://…` when it answers."""

import argparse
import asyncio
import gc
import signal

import uvloop

from tests.bed.processor import HttpProcessor


async def serve(host: str, port: int, fee: float) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with HttpProcessor(host=host, port=port, fee=fee) as processor:
        print(f"ready {processor.url}", flush=True)
        await stop.wait()


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("port", type=int, help="0: any free one")
parser.add_argument("--fee", type=float, default=0.05, help="share of the amount")
parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
arguments = parser.parse_args()
gc.freeze()
gc.set_threshold(100_000, 50, 50)  # its books only grow: looking through them again and again costs its callers time
uvloop.run(serve(arguments.host, arguments.port, arguments.fee))
