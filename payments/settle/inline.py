"""Payments that the web process sends itself: where a switch says so, and all of them while no worker is alive."""

import asyncio
import time
from datetime import UTC, datetime
from functools import cache
from uuid import UUID

from prometheus_client import Counter

from payments.intake.payment import NewPayment
from payments.settle import lifecycle
from payments.settle.concurrency import Slots
from payments.settle.work import PAYMENTS, Dispatch
from queueing.work.drain import CLAIM_FREE, GRACE
from queueing.work.inline import Answer, Inline
from registry import telemetry
from registry.data.loop import PerLoop

OPERATION = "payment"  # what its switch is called: `inline.payment`
NAME = "inline"  # of its Worker row
ROOM = 100  # payments asked for and not settled yet, per process
SLOTS = (
    2 * ROOM + CLAIM_FREE
)  # payments under way: one processor, which may hold half of them, can have all that were asked for
WAIT = 5.0  # seconds that a request waits for its payment; longer than most answers, shorter than a caller's patience


def _open() -> Inline:
    return Inline(
        lambda: Dispatch(Slots(SLOTS, SLOTS)),
        queue=PAYMENTS.queue,
        name=NAME,
        most=ROOM,
        answered=lambda answer: _answered(answer).inc(),
    )


processes: PerLoop[Inline] = PerLoop(_open, close=Inline.close, within=GRACE + 2.0)


def takes(payment: NewPayment) -> bool:
    """Whether there is room for `payment` now. One that is meant for later is the workers'."""
    return processes.get().has_room and (payment.scheduled_for is None or payment.scheduled_for <= datetime.now(UTC))


def send(tenant_id: int, correlation_id: UUID) -> asyncio.Future[Answer]:
    """Claim a durable payment and send it, at once; the future of what became of it. Never raises."""
    return processes.get().ask(tenant_id, correlation_id)


async def outcome(asked: asyncio.Future[Answer], payment: NewPayment, *, within: float, patient: bool) -> None:
    """Wait until the payment is settled, by whomever, at most `within` seconds. What is left in the queue is waited for
    by the `patient` only."""
    until = time.monotonic() + within
    try:
        async with asyncio.timeout(within):
            answer = await asked
    except TimeoutError:
        return
    if answer in (Answer.UNFINISHED, Answer.ELSEWHERE) or (answer is Answer.QUEUED and patient):
        await lifecycle.settled(payment.tenant_id, payment.correlation_id, within=until - time.monotonic())


async def start() -> None:
    """Stand in for the workers from now on while none is alive. A server's process does this."""
    await processes.get().watch()


def standing_in() -> bool:
    """Whether this process sends what workers should."""
    process = processes.peek()
    return process is not None and process.stands_in


@cache
def _answered(answer: Answer) -> Counter:
    return telemetry.INLINE.labels(answer.value)
