"""`python -m sandbox`: runs the Stripe simulator in the foreground until SIGTERM or SIGINT."""

import argparse
import asyncio
import logging
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from uvicorn.importer import import_from_string
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sandbox import home
from sandbox.app import Sandbox
from sandbox.server import listen, serving
from sandbox.webhooks import Listener

log = logging.getLogger(__name__)

STEP_AFTER = 1.0  # seconds until an automatic step, such as a dispute; long enough to be visible


@dataclass(frozen=True)
class Plan:
    """Socket, journal, keys and webhooks of this run."""

    listener: socket.socket
    data: Path | None
    facts: home.Facts
    webhooks: list[str]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description="Simulates Stripe over HTTP.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=12111, help="0: any free port")
    parser.add_argument(
        "--data", type=Path, help="file that stores the account; without it the account is lost at the end"
    )
    parser.add_argument("--secret-key", default="sk_test_sandbox")
    parser.add_argument("--webhook", action="append", default=[], metavar="URL", help="can be repeated")
    parser.add_argument("--webhook-secret", default="whsec_sandbox")
    parser.add_argument(
        "--home", type=Path, help="folder with account, keys and port, created if missing; replaces the other options"
    )
    parser.add_argument(
        "--http", default="", metavar="MODULE:CLASS", help="uvicorn protocol class with limits on requests"
    )
    return parser.parse_args()


def plan(wanted: argparse.Namespace) -> Plan:
    """Open the socket and load the keys. Raises OSError if the given port is taken; a remembered port is replaced by a free one."""
    if wanted.home is None:
        publishable = wanted.secret_key.replace("sk_", "pk_", 1)
        facts = home.Facts(
            secret_key=wanted.secret_key, publishable_key=publishable, webhook_secret=wanted.webhook_secret
        )
        return Plan(listen(wanted.host, wanted.port), wanted.data, facts, wanted.webhook)
    facts = home.load(wanted.home) or home.fresh()
    try:
        listener = listen(wanted.host, facts.port)
    except OSError:
        listener = listen(wanted.host)
    facts.host, facts.port = listener.getsockname()[:2]
    home.save(wanted.home, facts)
    return Plan(listener, home.journal(wanted.home), facts, wanted.webhook)


async def run(plan: Plan, protocol: type[HttpToolsProtocol]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    facts = plan.facts
    sandbox = Sandbox(secret_key=facts.secret_key, publishable_key=facts.publishable_key, data=plan.data)
    sandbox.step_after = STEP_AFTER
    sandbox.shop.secret = facts.shop_secret
    sandbox.webhooks.listeners += [Listener(url=url, secret=facts.webhook_secret) for url in plan.webhooks]
    async with serving(sandbox, plan.listener, protocol=protocol) as url:
        log.info("Stripe simulator at %s", url)
        sandbox.webhooks.send_undelivered()
        await stop.wait()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    wanted = arguments()
    try:
        made = plan(wanted)
    except OSError as error:
        sys.exit(f"cannot listen on {wanted.host}:{wanted.port}: {error}")
    asyncio.run(run(made, import_from_string(wanted.http) if wanted.http else HttpToolsProtocol))


if __name__ == "__main__":
    main()
