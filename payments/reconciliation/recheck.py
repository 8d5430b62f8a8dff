"""Compare one difference again."""

from datetime import timedelta
from uuid import UUID

from payments.models import Difference
from payments.processors.base import Account, Processor, ProcessorRecord, Result, ShowsBooks
from payments.reconciliation import comparison, matching
from payments.states import SUCCEEDED
from registry.data import database

AROUND = timedelta(seconds=2)  # of a booking's time, within which its record is searched


async def is_gone(processor: Processor, account: Account, difference: Difference) -> bool:
    """Whether both books agree about this payment now. Raises Unanswered."""
    if difference.kind == Difference.Kind.MISSING_THERE or not isinstance(processor, ShowsBooks):
        return await _is_booked_there(processor, account, difference)
    records, known = await records_of(processor, account, difference), dict[UUID, matching.Ours]()
    await comparison.learn(account, records, known)
    # Compared alone, the second of two bookings without our id would be taken for the first.
    seen = set(known) if difference.kind == Difference.Kind.DUPLICATE else set()
    found = await comparison.differences(account, records, known, seen)
    same = [one for one in found if (one.kind, one.key) == (difference.kind, difference.key)]
    await comparison.write(account, same)
    return not same


async def records_of(processor: ShowsBooks, account: Account, difference: Difference) -> list[ProcessorRecord]:
    """The processor's records of this booking."""
    since, until = difference.requested_at - AROUND, difference.requested_at + AROUND
    mine = {str(difference.correlation_id), difference.reference}
    books = processor.records(account, since, until)
    return [one async for one in books if {str(one.correlation_id), one.reference} & mine]


async def _is_booked_there(processor: Processor, account: Account, difference: Difference) -> bool:
    rows = await database.fetch(
        comparison.SQL["known"], {"tenant": difference.tenant_id, "correlations": [difference.correlation_id]}
    )
    if not rows:
        return False
    ours = matching.Ours(*rows[0])
    if ours.status != SUCCEEDED or ours.processor_id != account.id:
        return True  # our books no longer say that it is booked there
    answer = await processor.look_up(ours.order(account), account)
    if answer.result is Result.UNKNOWN:
        raise comparison.Unanswered(f"{account.name} gave no clear answer ({answer.code})")
    return answer.result is Result.BOOKED
