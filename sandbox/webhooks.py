"""Webhook delivery: signed, retried, and by the control API held back, duplicated or shuffled."""

import asyncio
import hashlib
import hmac
import json
import random
import time
from collections import deque
from collections.abc import Iterable
from typing import Self

import aiohttp
import msgspec

from sandbox.state import State, Thing, public

TIMEOUT = 10.0  # seconds for one delivery
WAITS = (1.0, 5.0, 30.0, 300.0, 1800.0, 7200.0)  # seconds between attempts; after the last the event stays undelivered
AT_ONCE = 20  # concurrent deliveries


class Listener(msgspec.Struct, kw_only=True, rename="camel"):
    """A webhook endpoint."""

    url: str
    secret: str
    types: list[str] = []  # empty: all


class Delivery(msgspec.Struct, frozen=True):
    """Result of one attempt."""

    event: str
    type: str
    url: str
    status: int  # 0: no response
    at: float


class Webhooks:
    """Delivers events in the background. An event stores the endpoints it is not delivered to (`_undelivered`)."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.listeners: list[Listener] = []
        self.waits: tuple[float, ...] = WAITS
        self.copies = 1  # number of times each event is sent
        self.shuffle_within = 0.0  # seconds over which events are delayed at random
        self.held = False  # keep events back until `release`
        self.log: deque[Delivery] = deque(maxlen=1000)
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._places = asyncio.Semaphore(AT_ONCE)
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()

    def send_waiting(self) -> None:
        """Start the delivery of new events."""
        while self.state.outbox:
            event = self.state.outbox.popleft()
            urls = [listener.url for listener in self.listeners if _wants(listener, event["type"])]
            event.update(_undelivered=urls, pending_webhooks=len(urls))
            if urls:
                self.state.save(event)
                self.send(event)

    def send(self, event: Thing, *, again: bool = False) -> None:
        """Send the event to its endpoints; without `again`, only to those without a successful delivery."""
        if self.held and not again:
            return
        for listener in self.listeners:
            if _wants(listener, event["type"]) and (again or listener.url in event["_undelivered"]):
                for _ in range(self.copies):
                    task = asyncio.create_task(self._deliver(event, listener))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

    def send_undelivered(self, *, shuffled: bool = False) -> None:
        """Send undelivered events: held back, or not delivered before a restart."""
        self.held = False
        waiting: Iterable[Thing] = [e for e in self.state.kinds["event"].values() if e.get("_undelivered")]
        for event in random.sample(list(waiting), k=len(list(waiting))) if shuffled else waiting:
            self.send(event)

    async def _deliver(self, event: Thing, listener: Listener) -> None:
        await asyncio.sleep(random.uniform(0, self.shuffle_within))
        for wait in (*self.waits, None):
            async with self._places:
                status = await self._post(event, listener)
            self.log.append(Delivery(event["id"], event["type"], listener.url, status, time.time()))
            if 200 <= status < 300:
                return await self._took(event, listener)
            if wait is not None:
                await asyncio.sleep(wait)
        return None

    async def _post(self, event: Thing, listener: Listener) -> int:
        body = payload(event)
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature(body, listener.secret),
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        }
        try:
            async with self._session.post(listener.url, data=body, headers=headers, allow_redirects=False) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            return 0

    async def _took(self, event: Thing, listener: Listener) -> None:
        if listener.url in event["_undelivered"]:
            event["_undelivered"].remove(listener.url)
            event["pending_webhooks"] = len(event["_undelivered"])
            self.state.save(event)
            await self.state.write_down()


def payload(event: Thing) -> bytes:
    """The body as Stripe writes it, indented: signatures cover the raw bytes."""
    return json.dumps(public(event), indent=2).encode()


def signature(body: bytes, secret: str, at: int | None = None) -> str:
    """The value of the `Stripe-Signature` header."""
    at = int(time.time()) if at is None else at
    digest = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def _wants(listener: Listener, type_: str) -> bool:
    return not listener.types or type_ in listener.types
