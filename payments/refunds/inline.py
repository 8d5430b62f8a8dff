"""Refunds that the web process pays itself, where a switch says so. Those that it does not get to stay owed, and workers pay them."""

from uuid import UUID

from payments.refunds.work import REFUNDS, RefundDispatch
from queueing.work.drain import CLAIM_FREE, GRACE
from queueing.work.inline import Inline
from registry.data.loop import PerLoop

OPERATION = "refund"  # what its switch is called: `inline.refund`
NAME = "inline.refunds"  # of its Worker row
ROOM = 50  # refunds asked for and not settled yet, per process
WAIT = 5.0  # seconds that a request waits for its refund; longer than most answers, shorter than a caller's patience


def _work() -> RefundDispatch:
    work = RefundDispatch()
    work.capacity = ROOM + CLAIM_FREE
    return work


processes: PerLoop[Inline] = PerLoop(
    lambda: Inline(_work, queue=REFUNDS.queue, name=NAME, most=ROOM), close=Inline.close, within=GRACE + 2.0
)


def pay(tenant_id: int, refund_id: UUID) -> None:
    """Claim a refund that is owed and pay it, at once and beside whatever else happens. Never raises."""
    processes.get().ask(tenant_id, refund_id)
