"""Events of processors as work: claim, call the handler of the type, settle with its effect.

The effect and the settlement are one transaction, fenced by worker and attempt: if the effect fails the event is still due, and an
event whose effect is written is never handled again.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from psycopg import AsyncConnection

from payments.inbound.decisions import DueEvent, EventClaim, EventSettlement, failed, ignored, misplaced
from payments.inbound.handlers import Effect, Handler, handler_of, object_of
from payments.inbound.payments import is_known
from payments.inbound.receive import QUEUE, SQL, traced_event
from payments.routing.work import ProcessorWork
from queueing.work import entry
from queueing.work.table import WorkTable, register
from queueing.work.work import Routed
from registry.data import database, faults
from registry.data.arrays import Bigints, Texts, unless_empty
from registry.data.batching import Batcher, Family
from registry.data.database import Row
from registry.telemetry import changes, context, metrics
from registry.telemetry.export import Attributes
from registry.tenants.sampling import TracedObject

HANDLE_WITHIN = 20.0  # seconds for the handler's calls to the processor; together with a write less than the lease
# Events with an effect per commit. The first one locks the tenant's event stream until the commit, for which accepting and settling
# wait, and each takes half a dozen round trips.
EFFECTS = 4
WRITES_AT_ONCE = 4  # transactions with effects; the worker's other connections stay free for other work

INBOUND = register(WorkTable(QUEUE, "payments_inboundevent", "closed IS NULL", SQL["columns"], accepted="received_at"))


@entry.register("inbound")
class InboundWork(ProcessorWork[EventClaim, EventSettlement]):
    """The work of handling events of processors."""

    table = INBOUND
    settle_rows = 500
    settle_linger = 0.0

    def __init__(self) -> None:
        super().__init__()
        # One transaction per tenant at a time: several would wait for each other's lock on its event stream.
        self._effects: Family[EventSettlement, Row | Exception | None] = Family(
            lambda: Batcher(self._settle_effects, max_rows=EFFECTS, in_flight=1)
        )
        self._writing = asyncio.Semaphore(WRITES_AT_ONCE)

    async def finish(self) -> None:
        await super().finish()
        await self._effects.finish()

    # -- Claiming ----------------------------------------------------------------------------------------------

    def route(self, rows: Sequence[Row]) -> Routed[EventClaim]:
        found = map(DueEvent._make, rows)
        return Routed([EventClaim(row, self.routes.account(row.tenant_id, row.processor_id)) for row in found])

    async def begin(self, conn: AsyncConnection, items: Sequence[EventClaim]) -> list[Row]:
        return await database.rows(conn, SQL["begin"], {**_keys(items), "worker": self.worker_id, "lease": self.lease})

    async def give_back(self, items: Sequence[EventClaim]) -> None:
        """Nothing of these events is written: another worker may claim them now."""
        attempts = Bigints([item.row.attempt for item in items])
        await database.fetch(SQL["give_back"], {**_keys(items), "worker": self.worker_id, "attempt": attempts})

    # -- Handling ----------------------------------------------------------------------------------------------

    async def send(self, items: Sequence[EventClaim]) -> list[EventSettlement]:
        return [await self._handle(claim) for claim in items]

    async def _handle(self, claim: EventClaim) -> EventSettlement:
        row = claim.row
        context.TENANT.set(row.tenant_id)
        handler = handler_of(row.type)
        if handler is None:
            return ignored(row)
        try:
            async with asyncio.timeout(HANDLE_WITHIN):
                if why := misplaced(claim):
                    return await self._misplaced(claim, why)
                effect = await self._call(handler, claim)
        except Exception as error:
            return failed(row, error)
        return EventSettlement(row, "done", effect.outcome, payment_id=effect.payment_id, effect=effect)

    async def _misplaced(self, claim: EventClaim, why: str) -> EventSettlement:
        row = claim.row
        dead = claim.account is None or await is_known(
            row.tenant_id, row.processor_id, object_of(row.body), row.object_id
        )
        return EventSettlement(row, "dead", error=why) if dead else ignored(row, why)

    async def _call(self, handler: Handler, claim: EventClaim) -> Effect:
        event = claim.event
        return await handler(event, await self.processor(event.account))

    # -- Settling ----------------------------------------------------------------------------------------------

    async def submit(self, outcome: EventSettlement) -> Row | None:
        effect = outcome.effect
        if effect is None or effect.write is None:
            return await super().submit(outcome)
        row = await self._effects.of(outcome.row.tenant_id).submit(outcome)
        if isinstance(row, Exception):
            raise row
        if row and effect.after:
            await effect.after()
        return row

    async def after_failed_write(self, outcome: EventSettlement, error: Exception) -> EventSettlement:
        """An effect that cannot be written is a failed attempt."""
        written = outcome.effect is not None and outcome.effect.write is not None
        return failed(outcome.row, error) if written else await super().after_failed_write(outcome, error)

    async def settle(self, outcomes: Sequence[EventSettlement]) -> list[Row]:
        return await database.fetch(SQL["finish"], self._columns(outcomes))

    def changed(self, outcome: EventSettlement, row: Row) -> changes.ChangeLine:
        event, touches = outcome.row, outcome.effect.touches if outcome.effect else ()
        return changes.change(
            "inbound event",
            "received",
            outcome.status,
            tenant=event.tenant_id,
            inbound=event.event_id,
            type=event.type,
            payment=touches[0] if touches else None,
            attempt=event.attempt,
            why=outcome.error or outcome.outcome,
        )

    async def after_settle(self, written: Sequence[tuple[EventSettlement, Row]]) -> None:
        for settlement, (_, _, seconds) in written:
            metrics.INBOUND_HANDLED.labels("again" if settlement.status == "received" else settlement.status).inc()
            if settlement.status == "done":
                metrics.INBOUND_SECONDS.observe(max(0.0, seconds))

    def is_done(self, outcome: EventSettlement, written: bool) -> bool:
        return written and not outcome.failed

    async def _settle_effects(self, batch: Sequence[EventSettlement]) -> list[Row | Exception | None]:
        """Settle events of one tenant with their effects, in one transaction.

        Payments are locked before the event stream and in order of id, as everywhere: else two transactions could deadlock.
        """
        tenant = batch[0].row.tenant_id
        touched = sorted({one for settlement in batch if settlement.effect for one in settlement.effect.touches})

        async def once() -> list[Row | Exception | None]:
            async with database.transaction() as conn:
                await database.rows(conn, SQL["hold"], {"tenant": tenant, "correlations": touched})
                return [await self._settle_effect(conn, settlement) for settlement in batch]

        async with self._writing:
            began = time.perf_counter()
            settled = await database.retrying(once)
        if self.traced:
            written = [one.key for one, row in zip(batch, settled, strict=True) if isinstance(row, tuple)]
            self.trace_commit(written, len(batch), began)
        await self.tell([(one, row) for one, row in zip(batch, settled, strict=True) if isinstance(row, tuple)])
        return settled

    async def _settle_effect(self, conn: AsyncConnection, settlement: EventSettlement) -> Row | Exception | None:
        """The row first, so that the fence holds while the effect is written; in a savepoint, so that a bad event fails alone."""
        try:
            async with conn.transaction():
                done = await database.rows(conn, SQL["finish"], self._columns([settlement]))
                if done and settlement.effect and settlement.effect.write:
                    await settlement.effect.write(conn)
        except TimeoutError:
            raise
        except Exception as error:
            if faults.is_temporary(error):
                raise  # the whole transaction is lost
            return error
        return done[0] if done else None

    # -- Traces --------------------------------------------------------------------------------------------------

    def traced_as(self, item: EventClaim) -> TracedObject:
        return traced_event(item.row.tenant_id, item.row.event_id)

    def described(self, outcome: EventSettlement) -> Attributes:
        touched = outcome.effect.touches if outcome.effect else ()
        return {
            "registry.event.type": outcome.row.type,
            "registry.payment.id": str(next(iter(touched), "")),
            "registry.attempt": outcome.row.attempt,
            "registry.status": outcome.status,
            "error.type": "failed" if outcome.failed else "",
        }

    def _columns(self, batch: Sequence[EventSettlement]) -> dict[str, Any]:
        return {
            **_keys(batch),
            "worker": self.worker_id,
            "attempt": Bigints([e.row.attempt for e in batch]),
            "status": Texts([e.status for e in batch]),
            "outcome": Texts([e.outcome[:100] for e in batch]),
            "error": Texts([e.error[:500].replace("\0", "") for e in batch]),
            "payment_id": unless_empty([e.payment_id for e in batch]),
            "wait": [e.wait for e in batch],
        }


def _keys(of: Sequence[EventClaim] | Sequence[EventSettlement]) -> dict[str, Any]:
    return {"tenant": Bigints([one.row.tenant_id for one in of]), "id": Bigints([one.row.id for one in of])}
