"""Storing a batch of entries: the registered function stores them, and bad records are found one by one and quarantined."""

import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from queueing.spill.record import STORED, Entry, Record, StoreResult
from registry.data import faults
from registry.errors import Problem, Unavailable
from registry.telemetry import metrics

log = logging.getLogger(__name__)

type Store = Callable[[list[Record]], Awaitable[list[StoreResult]]]

UNREADABLE = 0  # tenant id of a record that cannot be read


def is_bad(error: Exception) -> bool:
    """Whether the record itself is at fault: PostgreSQL refuses its row, its data cannot be read, or `store` refuses it.

    Only then is the record quarantined. Any other error may be temporary, so the record waits.
    """
    if isinstance(error, Problem):
        return not isinstance(error, Unavailable)
    return faults.is_row_error(error) or isinstance(error, (ValueError, msgspec.MsgspecError))


def tenants_of(entries: Sequence[Entry]) -> list[int]:
    return [entry.record.tenant_id if entry.record else UNREADABLE for entry in entries]


async def store_entries(kind: str, store: Store, entries: Sequence[Entry]) -> list[StoreResult]:
    """Store the readable entries; one result per entry. Raises what `store` raises about anything but a bad record."""
    records = [entry.record for entry in entries if entry.record]
    stored = iter(await _store_records(kind, store, records)) if records else iter(())
    return [next(stored) if entry.record else StoreResult(entry.fault) for entry in entries]


async def _store_records(kind: str, store: Store, records: list[Record]) -> list[StoreResult]:
    """Store all at once, or one by one where a record of the batch is bad."""
    try:
        return await store(records)
    except Exception as error:
        if not is_bad(error):
            raise
        if len(records) == 1:
            log.exception("a record of the spill cannot be stored", extra={"kind": kind})
            return [StoreResult(f"{type(error).__name__}: {error}"[:500])]
    return [result for record in records for result in await _store_records(kind, store, [record])]


def report(kind: str, entries: Sequence[Entry], results: Sequence[StoreResult]) -> None:
    """Count settled entries in the metrics and log each quarantined one."""
    stored = sum(result == STORED for result in results)
    metrics.SPILL_DRAINED.labels(kind, "stored").inc(stored)
    metrics.SPILL_DRAINED.labels(kind, "set_aside").inc(len(entries) - stored)
    for tenant, result in zip(tenants_of(entries), results, strict=True):
        if result.reason:
            log.error("record quarantined", extra={"kind": kind, "tenant": tenant, "reason": result.reason})
