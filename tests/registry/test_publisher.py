"""The publisher of hints: the first goes at once, later ones are collected; a failed send loses its hints and nothing else."""

import asyncio

from registry.data import loop
from registry.data.publisher import Publisher
from tests.conftest import eventually

SOON = 5.0  # seconds


class Wire:
    """What was sent, message by message; each waits for the gate."""

    def __init__(self) -> None:
        self.sent: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, hints: list[int]) -> None:
        await self.gate.wait()
        self.sent.append(hints)
        if 0 in hints:
            raise ConnectionError


async def test_the_first_event_is_sent_at_once_and_later_ones_share_the_next_message():
    wire = Wire()
    hints: Publisher[int] = Publisher(wire.send, interval=0.1)
    hints.publish([1])
    await eventually(lambda: wire.sent)
    for number in range(2, 6):
        hints.publish([number])

    await eventually(lambda: len(wire.sent) == 2, within=SOON)

    assert wire.sent == [[1], [2, 3, 4, 5]]


async def test_an_event_that_cannot_be_sent_is_dropped_and_the_next_is_sent():
    wire = Wire()
    hints: Publisher[int] = Publisher(wire.send, interval=0.0)
    hints.publish([0])
    await eventually(lambda: wire.sent)
    hints.publish([1])

    await eventually(lambda: wire.sent == [[0], [1]], within=SOON)


async def test_nothing_is_sent_without_events():
    wire = Wire()
    hints: Publisher[int] = Publisher(wire.send)
    hints.publish([])
    await hints.close()

    assert wire.sent == []


async def test_the_last_events_are_sent_at_the_end_of_the_loop():
    wire = Wire()
    hints: Publisher[int] = Publisher(wire.send)
    hints.publish([1])
    hints.publish([2])

    await hints.close()

    assert wire.sent == [[1, 2]]


async def test_a_hanging_message_does_not_block_the_end_of_the_loop(monkeypatch):
    monkeypatch.setattr(loop, "FINISH_LIMIT", 0.05)
    wire = Wire()
    wire.gate.clear()
    hints: Publisher[int] = Publisher(wire.send)
    hints.publish([1])

    async with asyncio.timeout(SOON):
        await hints.close()

    assert wire.sent == []
