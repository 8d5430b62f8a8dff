"""Refunds that the web process pays itself, where a switch says so. What it does not get to stays owed, and workers pay it.

It claims the refund it is asked for by name, as a worker claims what is due: what it holds when the process is killed lapses,
and a worker finds out what became of it.
"""

import asyncio
import contextvars
import logging
import time
from uuid import UUID

from payments.refunds.decisions import Claim
from payments.refunds.work import REFUNDS, SQL, RefundDispatch
from payments.routing.routing import SYNC_EVERY
from queueing.work.drain import GRACE
from registry.data import database
from registry.data.loop import PerLoop

log = logging.getLogger(__name__)

OPERATION = "refund"  # what its switch is called: `inline.refund`
ROOM = 50  # refunds in hand per process; what comes on top stays owed
WAIT = 5.0  # seconds that a request waits for its refund; longer than most answers, shorter than a caller's patience
NAMED = SQL["named"].format(columns=REFUNDS.columns, joins=REFUNDS.joins)


class InlineRefunds(RefundDispatch):
    """The worker's job, for refunds by name."""

    def __init__(self) -> None:
        super().__init__()
        self.in_hand: dict[asyncio.Task[None], Claim | None] = {}
        self._shared_at = 0.0

    def pay(self, tenant_id: int, refund_id: UUID) -> None:
        if len(self.in_hand) < ROOM:
            # In a context of its own: not the connection, nor the log's request id, of whoever asked.
            work = self._pay(tenant_id, refund_id)
            task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
            self.in_hand[task] = None
            task.add_done_callback(self.in_hand.pop)

    async def _pay(self, tenant_id: int, refund_id: UUID) -> None:
        try:
            if time.monotonic() - self._shared_at > SYNC_EVERY:
                self._shared_at = time.monotonic()
                await self.atlas.hear()
            if claim := await database.guarded(lambda: self._claim_named(tenant_id, refund_id)):
                self.in_hand[asyncio.current_task()] = claim  # type: ignore[index]
                await self.handle(claim)
        except Exception as error:  # its lease lapses, and a worker looks
            log.warning("a refund was left to the workers", extra={"refund": str(refund_id), "error": repr(error)})

    async def _claim_named(self, tenant_id: int, refund_id: UUID) -> Claim | None:
        async with database.transaction() as conn:
            found = await database.rows(conn, NAMED, {"tenant": tenant_id, "public": refund_id})
            claims = await self._take(conn, found)
        return claims[0] if claims else None

    async def leave(self) -> None:
        """Finish what is in hand, or hand it back after GRACE."""
        if self.in_hand:
            await asyncio.wait(self.in_hand, timeout=GRACE)
        left = dict(self.in_hand)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self.hand_back([claim for claim in left.values() if claim is not None])
        await self.close()


jobs: PerLoop[InlineRefunds] = PerLoop(InlineRefunds, close=InlineRefunds.leave, within=GRACE + 2.0)


def pay(tenant_id: int, refund_id: UUID) -> None:
    """Claim a refund that is owed and pay it, at once and beside whatever else happens. Never raises."""
    jobs.get().pay(tenant_id, refund_id)
