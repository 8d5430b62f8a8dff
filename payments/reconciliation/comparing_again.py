"""Ask the processor about one difference again."""

from datetime import timedelta
from uuid import UUID

from payments.models import Difference
from payments.processors.base import Account, Processor, Record, Result, ShowsBooks
from payments.reconciliation import comparison, verdicts
from payments.states import SUCCEEDED
from registry.data import database

AROUND = timedelta(seconds=2)  # of a booking's time: its record is looked for there


async def agrees(processor: Processor, account: Account, found: Difference) -> bool:
    """Whether both books say the same of this payment now. Raises Unanswered where the processor does not say."""
    if found.kind == Difference.Kind.MISSING_THERE or not isinstance(processor, ShowsBooks):
        return await _is_there(processor, account, found)
    records, known = await records_of(processor, account, found), dict[UUID, verdicts.Ours]()
    await comparison.learn(account, records, known)
    # Read by itself, the second of two bookings without an id of ours would pass for the first.
    seen = set(known) if found.kind == Difference.Kind.DUPLICATE else set()
    findings = [one for record in records if (one := verdicts.judge(account, record, known, seen))]
    await comparison.write(account, [one for one in findings if (one.kind, one.key) == (found.kind, found.key)])
    return not any((one.kind, one.key) == (found.kind, found.key) for one in findings)


async def records_of(processor: ShowsBooks, account: Account, found: Difference) -> list[Record]:
    """The processor's records of this booking."""
    since, until = found.requested_at - AROUND, found.requested_at + AROUND
    mine = {str(found.correlation_id), found.reference}
    books = processor.records(account, since, until)
    return [one async for one in books if {str(one.correlation_id), one.reference} & mine]


async def _is_there(processor: Processor, account: Account, found: Difference) -> bool:
    rows = await database.fetch(
        comparison.SQL["known"], {"tenant": found.tenant_id, "correlations": [found.correlation_id]}
    )
    if not rows:
        return False
    ours = verdicts.Ours(*rows[0])
    if ours.status != SUCCEEDED or ours.processor_id != account.id:
        return True  # our books no longer expect it there
    answer = await processor.look_up(ours.order(account), account)
    if answer.result is Result.UNKNOWN:
        raise comparison.Unanswered(f"{account.name} gave no clear answer ({answer.code})")
    return answer.result is Result.BOOKED
