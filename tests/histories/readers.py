"""Clients that look: at one payment, at lists and summaries, at the events of a payment and of the whole tenant."""

import asyncio
import random
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import aiohttp
import msgspec

from tests.chaos.traffic import client
from tests.histories.entries import Seen
from tests.histories.payers import CARD, Shop, once
from tests.histories.recorder import Recorder

LOOKS = {"status": 40, "detail": 12, "refunds": 14, "list": 14, "summary": 20}  # how often each is asked for
AGAIN = (0.02, 0.2)  # seconds until another socket
RECENT = 40  # payments that are looked at most
PAGE = 200  # items of a list
HELD = 2  # seconds of a long poll
FOLLOWED = 12  # long polls of one payment at most, then another one's turn
ENDS = ("succeeded", "failed", "canceled")
SILENCE = 5.0  # seconds without a message, after which a watcher opens another socket


class Looking:
    """A shop's clients that read. Each runs until it is cancelled."""

    def __init__(self, url: str, key: str, shop: Shop, recorder: Recorder, *, pauses: tuple[float, float]) -> None:
        self.url, self.key, self.shop, self.recorder = url, key, shop, recorder
        self.pauses = pauses  # seconds between two looks
        self.latest: dict[str, int] = {}  # position by watcher

    def session(self, name: str) -> aiohttp.ClientSession:
        return client(self.url, self.key, self.recorder.traces(name))

    # -- Payments, lists and sums ------------------------------------------------------------------------------

    async def look(self, name: str, dice: random.Random) -> None:
        async with self.session(name) as session:
            while True:
                await asyncio.sleep(dice.uniform(*self.pauses))
                [what] = dice.choices(list(LOOKS), LOOKS.values())
                if payment := self._some(dice):
                    await self._look_at(session, what, payment)

    def _some(self, dice: random.Random) -> str:
        recent = self.shop.accepted[-RECENT:]
        return dice.choice(recent) if recent else ""

    async def _look_at(self, session: aiohttp.ClientSession, what: str, payment: str) -> None:
        match what:
            case "status":
                self._note(await once(session, "GET", f"/payments/{payment}/status"))
            case "detail":
                self._note(await once(session, "GET", f"/payments/{payment}"))
            case "refunds":
                await once(session, "GET", f"/payments/{payment}/refunds")
            case "summary":
                await once(session, "GET", "/payments-summary")
            case "list":
                await self.all_pages(session)

    def _note(self, answer: tuple[int, Any] | None) -> None:
        """The payment can be refunded from now on."""
        if answer and answer[0] == 200:
            found = answer[1]
            if found["status"] == "succeeded" and found["processor"] == CARD:
                self.shop.refundable[found["correlationId"]] = round(float(found["amount"]) * 100)

    async def all_pages(self, session: aiohttp.ClientSession) -> None:
        query = {"limit": str(PAGE)}
        while answer := await once(session, "GET", "/payments", params=query):
            status, page = answer
            if status != 200 or not page["next"]:
                return
            query["cursor"] = page["next"]

    # -- Events of one payment -----------------------------------------------------------------------------------

    async def follow(self, name: str, dice: random.Random) -> None:
        """The events of one payment after the other, by long polls from a number on."""
        async with self.session(name) as session:
            while True:
                await asyncio.sleep(dice.uniform(*self.pauses))
                if payment := self._some(dice):
                    await self._follow(session, payment)

    async def _follow(self, session: aiohttp.ClientSession, payment: str) -> None:
        after = 0
        for _ in range(FOLLOWED):
            query = {"after": str(after), "wait": str(HELD)}
            answer = await once(session, "GET", f"/payments/{payment}/events", params=query)
            if not answer or answer[0] != 200:
                return
            after = answer[1]["next"]
            if any(event["payment"]["status"] in ENDS for event in answer[1]["events"]):
                return

    # -- Events of the tenant --------------------------------------------------------------------------------------

    async def watch(self, name: str) -> None:
        """All events by a websocket, which is opened again from the latest number on."""
        self.latest[name] = 0
        async with self.session(name) as session:
            for connection in range(1_000_000):
                with suppress(aiohttp.ClientError, TimeoutError, OSError):
                    async with session.ws_connect("/ws/payments", heartbeat=SILENCE) as socket:
                        await self._watch(name, connection, socket)
                await asyncio.sleep(random.uniform(*AGAIN))

    async def _watch(self, name: str, connection: int, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Resume, and then take what comes. The answer to a ping says that the resume has sent everything."""
        await socket.send_json({"type": "resume", "after": self.latest[name]})
        await socket.send_json({"type": "ping"})
        held: list[Seen] | None = []
        async for message in socket:
            said = message.json()
            if said["type"] == "pong":
                self._take(name, resumed(held or []))
                held = None
            elif said["type"] == "payment":
                seen = self._seen(name, connection, said)
                if held is None:
                    self._take(name, [seen])
                else:
                    held.append(seen)
        for seen in held or ():  # the connection was cut before: the next one resumes after the same number
            self.recorder.add(msgspec.structs.replace(seen, early=True))

    def _seen(self, name: str, connection: int, said: dict[str, Any]) -> Seen:
        payment = said["payment"]
        return Seen(
            reader=name,
            connection=connection,
            at=self.recorder.now(),
            position=said["sequence"],
            payment=payment["correlationId"],
            sequence=payment["sequence"],
            status=payment["status"],
        )

    def _take(self, name: str, several: Iterable[Seen]) -> None:
        for seen in several:
            self.recorder.add(seen)
            if not seen.early:
                self.latest[name] = seen.position


def resumed(several: list[Seen]) -> list[Seen]:
    """What came until a resume was done. It sends everything above its number in order: what came before its first event was early."""
    first = min((seen.position for seen in several), default=0)
    began = max((place for place, seen in enumerate(several) if seen.position == first), default=0)
    return [msgspec.structs.replace(seen, early=place < began) for place, seen in enumerate(several)]
