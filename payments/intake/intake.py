"""Intake: make payments durable, many requests with one commit. While PostgreSQL is unavailable, in the spill."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from django.conf import settings

from payments.intake import spilling
from payments.intake.payment import NewPayment, Receipt, Submission, fingerprint
from payments.intake.spilling import KIND
from payments.intake.store import IntakeResult, store
from queueing import spill
from registry.data import clock, db_breaker, faults
from registry.data.batching import Batcher
from registry.data.faults import Fault
from registry.data.loop import PerLoop, sync_twin
from registry.errors import Unavailable
from registry.telemetry.context import REQUEST

log = logging.getLogger(__name__)

SEPARATE_TENANTS = 10  # tenants of a slow batch at most that are written separately: each takes a connection
SEPARATE_LIMIT = 0.15  # seconds for that; together with db_breaker.PATIENCE it leaves time to spill within a second


async def submit(payment: NewPayment, *, inline: bool = False) -> Receipt:
    """Make `payment` durable, unless it is already. Raises DifferentContent (409), Unavailable (503)."""
    result = await _batchers.get().submit(Submission(payment, fingerprint(payment), clock.now(), inline, REQUEST.get()))
    if isinstance(result, Exception):
        raise result
    return result


async def submit_many(payments: Sequence[NewPayment], *, inline: bool = False) -> list[IntakeResult]:
    """`submit` for up to a thousand at once: one result per payment, in order."""
    batcher, now = _batchers.get(), clock.now()
    under_way = [batcher.submit(Submission(one, fingerprint(one), now, inline, REQUEST.get())) for one in payments]
    return [await result for result in under_way]


submit_sync = sync_twin(submit)

# -- Writing a batch -----------------------------------------------------------------------------------------

type IntakeResults = list[Any]  # of a batch, in order; None where a submission has no result yet
type Write = Callable[[Sequence[Submission]], Awaitable[Sequence[IntakeResult | None]]]


async def _store(batch: Sequence[Submission]) -> list[IntakeResult]:
    """INTAKE=direct: write a batch into PostgreSQL; while that is unavailable, into the spill."""
    # Spilled payments go first: a write that overtook them could take an id that was promised to other content.
    behind = await spill.blocked(KIND, {one.payment.tenant_id for one in batch})
    results: IntakeResults = [None] * len(batch)
    await _fill(results, batch, lambda one: one.payment.tenant_id not in behind, _directly)
    await _fill(results, batch, lambda _: True, spilling.append)
    if behind:
        await _out_of_turn(results, batch)
    return results


async def _relay(batch: Sequence[Submission]) -> list[IntakeResult]:
    """INTAKE=stream: append a batch to the shared stream; while that is unavailable, `_store` it."""
    results = await spilling.relay(batch)
    return await _store(batch) if all(isinstance(result, Unavailable) for result in results) else results


WAYS = {"direct": _store, "stream": _relay}  # by the setting INTAKE

_batchers: PerLoop[Batcher[Submission, IntakeResult]] = PerLoop(
    lambda: Batcher(lambda batch: WAYS[settings.INTAKE](batch)), close=Batcher.finish
)


async def _fill(
    results: IntakeResults, batch: Sequence[Submission], wanted: Callable[[Submission], bool], write: Write
) -> None:
    """Write the `wanted` submissions that have no result yet, and fill in their results."""
    open_ones = [n for n, one in enumerate(batch) if results[n] is None and wanted(one)]
    if open_ones:
        written = await write([batch[n] for n in open_ones])
        for n, result in zip(open_ones, written, strict=True):
            results[n] = result


async def _directly(batch: Sequence[Submission]) -> Sequence[IntakeResult | None]:
    """Write into PostgreSQL; None for submissions that it does not accept now.

    A lock on the rows of one tenant must not delay the others, so a slow batch is written again for each tenant separately.
    """
    try:
        return await db_breaker.attempt(lambda: store(batch))
    except Unavailable as error:
        faults.warn(log, "PostgreSQL accepts no payments now; they go to the spill", reason=error.detail)
        slow = error.detail == Fault.SLOW.value
    results: IntakeResults = [None] * len(batch)
    tenants = {one.payment.tenant_id for one in batch}
    if slow and 1 < len(tenants) <= SEPARATE_TENANTS:
        await asyncio.gather(*(_fill(results, batch, partial(_is_of, tenant), _separately) for tenant in tenants))
    return results


def _is_of(tenant_id: int, one: Submission) -> bool:
    return one.payment.tenant_id == tenant_id


async def _separately(batch: Sequence[Submission]) -> Sequence[IntakeResult | None]:
    try:
        async with asyncio.timeout(SEPARATE_LIMIT):
            return await db_breaker.attempt(lambda: store(batch))
    except (Unavailable, TimeoutError):
        return [None] * len(batch)


async def _out_of_turn(results: IntakeResults, batch: Sequence[Submission]) -> None:
    """Write payments that a full spill refused into PostgreSQL, if it is available again: out of order, but accepted."""
    refused = [n for n, result in enumerate(results) if isinstance(result, Unavailable)]
    if refused:
        with suppress(Unavailable):
            late = await db_breaker.attempt(lambda: store([batch[n] for n in refused]))
            for n, result in zip(refused, late, strict=True):
                results[n] = result
