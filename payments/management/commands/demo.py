"""`demo`: prepare the demo tenant, then send it realistic payments and messages over HTTP until a stop signal."""

import asyncio
import contextlib
import json as jsonlib
import signal
from typing import Any

from django.core.management.base import CommandError, CommandParser

from payments.demo import shop
from queueing import demo as queue_demo
from registry.http.client import BadAddress, Client, HttpError
from registry.management.base import AsyncCommand, add_json

SEND_TIMEOUT = 10.0  # seconds for one payment; the service answers in milliseconds or says that it cannot
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  # seconds between attempts while the service is unavailable
AT_ONCE = 20  # payments in flight


class Command(AsyncCommand):
    help = "Make the demo tenant, its processors, login and key; without --prepare also send it payments until stopped."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the service answers")
        parser.add_argument("--prepare", action="store_true", help="make what is missing and stop")
        parser.add_argument(
            "--stripe", action="store_true", help="wait for the sandbox Stripe, and pay by card with it"
        )
        add_json(parser)

    async def run(self, *, url: str, prepare: bool, stripe: bool, json: bool, **_: Any) -> None:
        url = url.rstrip("/")
        known = await shop.prepare(stripe=stripe)
        if prepare or json:
            facts = shop.facts(url, known)
            self.report("\n".join(f"{name:<9} {value}" for name, value in facts.items()), facts, as_json=json)
        if not prepare:
            await trickle(url, known.api_key)


async def trickle(url: str, api_key: str) -> None:
    """Send payments until SIGTERM or SIGINT. Raises CommandError when the key is refused."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
    try:
        client = Client(url, headers=headers)
    except BadAddress as error:
        raise CommandError(str(error)) from None
    async with client:
        sending = asyncio.create_task(_send_all(client))
        queueing = asyncio.create_task(queue_demo.run(client))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({sending, queueing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (sending, queueing, stopping):
            task.cancel()
        await asyncio.gather(queueing, return_exceptions=True)
        with contextlib.suppress(asyncio.CancelledError):
            await sending


async def _send_all(client: Client) -> None:
    slots = asyncio.Semaphore(AT_ONCE)
    try:
        async with asyncio.TaskGroup() as group:
            for pause in shop.pauses():
                await slots.acquire()
                group.create_task(_send(client, shop.purchase())).add_done_callback(lambda _: slots.release())
                await asyncio.sleep(pause)
    except* CommandError as refused:
        raise refused.exceptions[0] from None


async def _send(client: Client, body: dict[str, Any]) -> None:
    """Repeat until it is accepted: the same id makes it the same payment."""
    wait = FIRST_WAIT
    while True:
        try:
            answer = await client.request("POST", "/payments", jsonlib.dumps(body).encode(), limit=SEND_TIMEOUT)
            if answer.status == 401:
                raise CommandError("the demo's key is refused; `demo --prepare` makes a new one")
            if answer.status < 500 and answer.status != 429:
                return  # accepted, or refused for good
        except HttpError:
            pass  # unavailable or starting
        await asyncio.sleep(wait)
        wait = min(wait * 2, LONGEST_WAIT)
