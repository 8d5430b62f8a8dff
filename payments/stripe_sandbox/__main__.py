"""`python -m payments.stripe_sandbox`: the sandbox in the foreground until SIGTERM or SIGINT."""

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from payments.stripe_sandbox.app import Sandbox
from payments.stripe_sandbox.server import listen, serving
from payments.stripe_sandbox.webhooks import Listener

log = logging.getLogger(__name__)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m payments.stripe_sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=12111)
    parser.add_argument("--data", type=Path, help="a file that keeps the account; without it, it is forgotten")
    parser.add_argument("--secret-key", default="sk_test_sandbox")
    parser.add_argument("--webhook", action="append", default=[], metavar="URL", help="may be given several times")
    parser.add_argument("--webhook-secret", default="whsec_sandbox")
    return parser.parse_args()


async def run(wanted: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    sandbox = Sandbox(secret_key=wanted.secret_key, data=wanted.data)
    sandbox.webhooks.listeners += [Listener(url=url, secret=wanted.webhook_secret) for url in wanted.webhook]
    async with serving(sandbox, listen(wanted.host, wanted.port)) as url:
        log.info("Stripe is played at %s", url)
        sandbox.webhooks.send_undelivered()
        await stop.wait()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    wanted = arguments()
    try:
        asyncio.run(run(wanted))
    except OSError as error:
        sys.exit(f"cannot listen on {wanted.host}:{wanted.port}: {error}")


if __name__ == "__main__":
    main()
