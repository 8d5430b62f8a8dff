"""Clients that change something: payments one by one and in batches, sent again and with other content, and refunds."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import aiohttp

from tests.chaos.sender import FIRST_WAIT, LONGEST_WAIT, Client

CARD = "card"  # the processor that can refund; the others book only
METHOD = "pm_card_visa"
SMALLEST, LARGEST = 100, 100_000  # minor units of a payment
BATCH = (2, 6)  # payments
PLAIN, BATCHED, AGAIN, TOGETHER, OTHERWISE = "plain", "batch", "again", "together", "otherwise"
WAYS = {PLAIN: 50, BATCHED: 12, AGAIN: 14, TOGETHER: 10, OTHERWISE: 14}  # how often a payment is sent in each way
PARTS = (0.1, 0.3, 0.5, 1.0)  # of a payment that a refund gives back


class Shop:
    """What its clients know: payments that were accepted, and those that somebody saw succeed at the card's processor."""

    def __init__(self) -> None:
        self.accepted: list[str] = []
        self.refundable: dict[str, int] = {}  # minor units by payment
        self.open = asyncio.Event()  # cleared while nobody may send
        self.open.set()
        self.busy = 0

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """A sender is at work, from the first try of something to its last answer."""
        await self.open.wait()
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1


class Payer(Client):
    """Makes payments at a rate, each with an id that its dice chose."""

    def __init__(self, shop: Shop, *arguments: Any, dice: random.Random, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.shop, self.dice = shop, dice

    async def send(self, session: aiohttp.ClientSession) -> None:
        [way] = self.dice.choices(list(WAYS), WAYS.values())
        many = self.dice.randint(*BATCH) if way == BATCHED else 1
        payments = [self._payment() for _ in range(many)]
        other = self._payment()["amount"]
        async with self.shop.sending():
            if way == BATCHED:
                await self._batch(session, payments)
            else:
                await self._one(session, way, payments[0], other)
        self.shop.accepted += [one["correlationId"] for one in payments]

    async def _one(self, session: aiohttp.ClientSession, way: str, payment: dict[str, Any], other: str) -> None:
        times = 2 if way == TOGETHER else 1
        await asyncio.gather(*(self.until_accepted(session, "/payments", json=payment) for _ in range(times)))
        if way == AGAIN:
            await self.until_accepted(session, "/payments", json=payment)
        if way == OTHERWISE:
            await self.once(session, "/payments", json={**payment, "amount": other})

    async def _batch(self, session: aiohttp.ClientSession, payments: list[dict[str, Any]]) -> None:
        async for _ in waits():
            answer = await self.once(session, "/payments/batch", json={"items": payments})
            if answer and answer[0] == 200:
                return

    async def once(self, session: aiohttp.ClientSession, path: str, **request: Any) -> tuple[int, Any] | None:
        """Status and body; None where nobody answered."""
        return await once(session, "POST", path, **request)

    def _payment(self) -> dict[str, Any]:
        cents = self.dice.randint(SMALLEST, LARGEST)
        named = {"processor": CARD} if self.dice.random() < 0.35 else {}
        name = str(UUID(int=self.dice.getrandbits(128), version=4))
        return {"correlationId": name, "amount": decimal(cents), "paymentMethod": METHOD, **named}


class Refunder(Client):
    """Gives parts of succeeded payments back, now and then more than there is, and asks again under the same key."""

    def __init__(self, shop: Shop, *arguments: Any, dice: random.Random, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.shop, self.dice = shop, dice
        self._numbers = itertools.count(1)

    async def send(self, session: aiohttp.ClientSession) -> None:
        if not self.shop.refundable:
            return
        payment = self.dice.choice(sorted(self.shop.refundable))
        part = max(int(self.shop.refundable[payment] * self.dice.choice(PARTS)), 1)
        times = self.dice.choice((1, 1, 2))
        headers = {"Idempotency-Key": f"refund-{next(self._numbers)}"}
        path = f"/payments/{payment}/refunds"
        async with self.shop.sending():
            for _ in range(times):
                await self._until_judged(session, path, json={"amount": decimal(part)}, headers=headers)
            if self.dice.random() < 0.1:  # other content under the same key
                await once(session, "POST", path, json={"amount": decimal(part + 1)}, headers=headers)

    async def _until_judged(self, session: aiohttp.ClientSession, path: str, **request: Any) -> None:
        async for _ in waits():
            answer = await once(session, "POST", path, **request)
            if answer and answer[0] != 503:
                return


def decimal(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


async def waits() -> AsyncIterator[None]:
    """Between tries: none before the first, then longer and longer ones."""
    wait = FIRST_WAIT
    while True:
        yield
        await asyncio.sleep(wait * random.uniform(0.5, 1))
        wait = min(wait * 2, LONGEST_WAIT)


async def once(session: aiohttp.ClientSession, method: str, path: str, **request: Any) -> tuple[int, Any] | None:
    """Status and body of one try; None where nobody answered. What is wrong with an answer is for the checker to say."""
    try:
        async with session.request(method, path, **request) as response:
            body = await response.read()
            return response.status, await response.json(content_type=None) if body else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None


async def until_quiet(shop: Shop) -> None:
    """Nobody sends; what was begun has its last answer."""
    shop.open.clear()
    while shop.busy:
        await asyncio.sleep(0.02)
