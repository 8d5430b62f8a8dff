"""What workers and cron run for outbound webhooks, by name."""

import logging

from queueing.outbound import deliveries
from queueing.outbound.work import Deliveries
from queueing.work import entry
from registry.data import chores

log = logging.getLogger(__name__)

TRIM_EVERY = 600  # seconds between removals of old deliveries


async def trim_deliveries() -> None:
    if removed := await deliveries.trim():
        log.info("old webhook deliveries removed", extra={"deliveries": removed})


entry.DRAINS["webhooks"] = Deliveries
entry.CHORES["trim-deliveries"] = trim_deliveries
chores.every("trim-deliveries", TRIM_EVERY)
