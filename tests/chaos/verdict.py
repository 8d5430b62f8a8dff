"""Checks after a storm: our ledger against the records of the client and of the processors, and its own sums."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

from tests.chaos.sender import Sender
from tests.chaos.service import Service
from tests.waiting import SCALE

SETTLE_LIMIT = 90.0 * SCALE  # seconds for what was accepted last


async def until_settled(service: Service, *, before: datetime, within: float) -> None:
    """Ready, and nothing open that was accepted up to `before`. Raises TimeoutError with what the service said last."""
    try:
        async with asyncio.timeout(within):
            while not (
                await asyncio.to_thread(service.is_ready) and await asyncio.to_thread(service.is_settled, before)
            ):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise TimeoutError(f"not whole after {within:g} s\n{service.last_words()}") from None


async def faults(service: Service, sender: Sender, *, ledger: bool = True) -> list[str]:
    """What is wrong, in words; nothing is being sent meanwhile. `ledger`: prove its sums too, which a command does."""
    await until_settled(service, before=datetime.now(UTC), within=SETTLE_LIMIT)
    found = await asyncio.to_thread(lambda: list(_faults(service, sender)))
    if not ledger:
        return found
    try:
        await service.manage("ledger", "verify")
    except RuntimeError as error:
        found.append(f"the ledger does not add up: {error}")
    return found


def _faults(service: Service, sender: Sender) -> Iterator[str]:
    books = {name: processor.booked for name, processor in service.processors.items()}
    booked = {key: cents for book in books.values() for key, (cents, _) in book.items()}
    if doubled := books["default"].keys() & books["fallback"].keys():
        yield f"{len(doubled)} booked at both processors: {sorted(doubled)[:3]}"
    if lost := sender.accepted.keys() - booked:
        yield f"{len(lost)} accepted and never booked: {sorted(lost)[:3]}"
    if invented := booked.keys() - sender.accepted.keys() - sender.others:
        yield f"{len(invented)} booked and never accepted: {sorted(invented)[:3]}"
    if wrong := [key for key in sender.accepted.keys() & booked if sender.accepted[key] != booked[key]]:
        yield f"{len(wrong)} booked with another amount: {wrong[:3]}"
    if sender.surprises:
        yield f"{len(sender.surprises)} answers no client should get: {sender.surprises[:3]}"
    yield from _sums_off(service, [at for book in books.values() for _, at in book.values()])


def _sums_off(service: Service, moments: list[str]) -> Iterator[str]:
    """Everything, and a window that begins and ends at a booking's very millisecond."""
    moments = sorted(moments)
    window = {"from": moments[len(moments) // 3], "to": moments[len(moments) * 2 // 3]}
    for query in ({}, window):
        ours = service.get("/payments-summary?" + "&".join(f"{name}={at}" for name, at in query.items()))
        for name, processor in service.processors.items():
            theirs = processor.summary(**query)
            if any(ours[name][figure] != theirs[figure] for figure in ("totalRequests", "totalAmount")):
                yield f"summary {query}: ours of {name} is {ours[name]}, its own {theirs}"
