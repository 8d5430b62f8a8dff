"""Refunds that the web process sends itself, if a switch says so. Workers send those that it has no capacity for."""

from uuid import UUID

from payments.refunds.work import REFUNDS, RefundDispatch
from queueing.work.drain import CLAIM_FREE, GRACE
from queueing.work.inline import Inline
from registry.data.loop import PerLoop

OPERATION = "refund"  # its switch is `inline.refund`
NAME = "inline.refunds"  # of its Worker row
ROOM = 50  # refunds in flight per process
WAIT = (
    5.0  # seconds that a request waits for its refund: longer than most answers, shorter than the time-outs of clients
)


def _work() -> RefundDispatch:
    work = RefundDispatch()
    work.capacity = ROOM + CLAIM_FREE
    return work


processes: PerLoop[Inline] = PerLoop(
    lambda: Inline(_work, queue=REFUNDS.queue, name=NAME, most=ROOM), close=Inline.close, within=GRACE + 2.0
)


def send(tenant_id: int, refund_id: UUID) -> None:
    """Claim and send an accepted refund, in the background. Never raises."""
    processes.get().ask(tenant_id, refund_id)
