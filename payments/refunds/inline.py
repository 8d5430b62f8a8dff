"""Inline refunds: the web process sends a refund at once, if a switch says so. Workers send those that it has no capacity for."""

from uuid import UUID

from payments.refunds.work import REFUNDS, RefundWork
from queueing.work.drain import CLAIM_FREE
from queueing.work.inline import Inline, per_loop

OPERATION = "refund"  # of the switch `inline.refund`
NAME = "inline.refunds"  # of its Worker row
LIMIT = 50  # refunds that requests send at the same time, per process
WAIT = 5.0  # seconds that a request waits for its refund; longer than most processors take, shorter than callers wait


def _work() -> RefundWork:
    work = RefundWork()
    work.capacity = LIMIT + CLAIM_FREE
    return work


loops = per_loop(lambda: Inline(_work, queue=REFUNDS.queue, name=NAME, limit=LIMIT))


def send(tenant_id: int, refund_id: UUID) -> None:
    """Claim a refund that is due and send it at once, in the background. Never raises."""
    loops.get().submit(tenant_id, refund_id)
