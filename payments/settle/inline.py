"""Inline sending of payments by the web process: where a switch says so, and of all payments while no worker is alive."""

import asyncio
import time
from functools import cache
from uuid import UUID

from prometheus_client import Counter

from payments.intake.payment import NewPayment
from payments.settle import lifecycle
from payments.settle.concurrency import Slots
from payments.settle.work import PAYMENTS, PaymentWork
from queueing.work.drain import CLAIM_FREE
from queueing.work.inline import Inline, Result, per_loop
from registry.data import clock
from registry.telemetry import metrics

OPERATION = "payment"  # of the switch `inline.payment`
NAME = "inline"  # of its Worker row
LIMIT = 100  # payments that requests send at the same time, per process
SLOTS = 2 * LIMIT + CLAIM_FREE  # payments in flight: enough for LIMIT at one processor, which may hold half of them
WAIT = 5.0  # seconds that a request waits for its payment; longer than most processors take, shorter than callers wait


def _open() -> Inline:
    return Inline(
        lambda: PaymentWork(Slots(SLOTS, SLOTS)),
        queue=PAYMENTS.queue,
        name=NAME,
        limit=LIMIT,
        on_result=lambda result: _counter(result).inc(),
    )


loops = per_loop(_open)


def takes(payment: NewPayment) -> bool:
    """Whether the web process can send `payment` now. Payments that are scheduled for later are left to the workers."""
    return loops.get().has_capacity and (payment.scheduled_for is None or payment.scheduled_for <= clock.now())


def send(tenant_id: int, correlation_id: UUID) -> asyncio.Future[Result]:
    """Claim a durable payment and send it at once; the future of the result. Never raises."""
    return loops.get().submit(tenant_id, correlation_id)


async def outcome(sending: asyncio.Future[Result], payment: NewPayment, *, within: float, patient: bool) -> None:
    """Wait until the payment is settled, here or by a worker, for at most `within` seconds.

    Only if `patient`, also for a payment that this process left in the queue.
    """
    until = time.monotonic() + within
    try:
        async with asyncio.timeout(within):
            result = await sending
    except TimeoutError:
        return
    if result in (Result.UNFINISHED, Result.ELSEWHERE) or (result is Result.QUEUED and patient):
        await lifecycle.settled(payment.tenant_id, payment.correlation_id, within=until - time.monotonic())


async def start() -> None:
    """Stand in for the workers, from now on, while none is alive. The processes of a server call this."""
    await loops.get().watch()


def standing_in() -> bool:
    """Whether this process does the work of missing workers."""
    current = loops.peek()
    return current is not None and current.stands_in


@cache
def _counter(result: Result) -> Counter:
    return metrics.INLINE.labels(result.value)
