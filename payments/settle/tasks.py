"""What workers and cron run for payments, by name."""

import logging

from payments.books import ledger
from payments.inbound import (  # noqa: F401 - the handlers of payments' events
    operate,
    payments,
    poll,
    refunds,
)
from payments.inbound.work import Inbound
from payments.refunds.work import RefundDispatch
from payments.settle.work import Dispatch
from queueing.work import entry
from registry import telemetry
from registry.data import chores

log = logging.getLogger(__name__)

RETIRE_EVERY = 3600  # seconds between removals of events of processors that are old
PROVE_EVERY = 1800  # seconds between proofs of what is new in the ledger; the whole is proven once a day


async def prove_ledger() -> None:
    proof = await ledger.prove_next()
    telemetry.LEDGER_PROOFS.labels("sound" if proof.sound else "unsound").inc()
    if proof.sound:
        log.info("ledger proven", extra={"payments": proof.payments, "lines": proof.lines})
    else:
        log.error("ledger does not add up", extra={"proof": str(proof)})


async def retire_inbound() -> None:
    if removed := await operate.retire():
        log.info("old events of processors removed", extra={"events": removed})


async def poll_inbound() -> None:
    if new := await poll.poll():
        log.info("events of processors fetched that were not delivered", extra={"events": new})


entry.DRAINS.update(payments=Dispatch, refunds=RefundDispatch, inbound=Inbound)
for name, chore, seconds in (
    ("prove-ledger", prove_ledger, PROVE_EVERY),
    ("poll-inbound", poll_inbound, poll.EVERY),
    ("retire-inbound", retire_inbound, RETIRE_EVERY),
):
    entry.CHORES[name] = chore
    chores.every(name, seconds)
