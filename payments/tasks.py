"""What workers and cron run for payments, by name."""

import logging

from payments import ledger
from payments.dispatch import Dispatch
from queueing import schedule, tasks
from registry import telemetry

log = logging.getLogger(__name__)

PROVE_EVERY = 1800  # seconds between proofs of what is new in the ledger; the whole is proven once a day


async def prove_ledger() -> None:
    proof = await ledger.prove_next()
    telemetry.LEDGER_PROOFS.labels("sound" if proof.sound else "unsound").inc()
    if proof.sound:
        log.info("ledger proven", extra={"payments": proof.payments, "lines": proof.lines})
    else:
        log.error("ledger does not add up", extra={"proof": str(proof)})


tasks.DRAINS["payments"] = Dispatch
tasks.CHORES["prove-ledger"] = prove_ledger
schedule.every("prove-ledger", PROVE_EVERY)
