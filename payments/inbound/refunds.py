"""Handlers of events about refunds and disputes: fetch the object, and book its current state in the event's transaction."""

from collections.abc import Awaitable, Callable, Sequence

from msgspec.structs import replace
from psycopg import AsyncConnection

from payments.errors import NotRefundable, UnknownPayment
from payments.inbound.handlers import HANDLERS, Effect, NotFoundYet, ProcessorEvent, RetryLater
from payments.inbound.payments import is_known, subject_of
from payments.processors.base import NotThere, Processor, Unanswered
from payments.processors.reports import DisputeReport, RefundReport, ReportsRefunds, Subject
from payments.refunds import disputes, refunds
from payments.refunds.subjects import payment_of
from registry.data import live

NOT_OURS = Effect("not ours")

type Book = Callable[[AsyncConnection], Awaitable[Sequence[live.Event]]]


async def refund(event: ProcessorEvent, processor: Processor) -> Effect:
    """Book the current state of a refund, also of one that was created at the processor. Raises RetryLater."""
    return await _booking(
        event, [await _ask(event, _refund_reports(processor).refund_report(event.object_id, event.account))]
    )


async def charge_refunded(event: ProcessorEvent, processor: Processor) -> Effect:
    """Book all refunds of the charge, for the event does not say which one changed. Raises RetryLater."""
    report = await _ask(event, _refund_reports(processor).refunds_of_charge(event.object_id, event.account))
    return await _booking(event, report)


async def dispute(event: ProcessorEvent, processor: Processor) -> Effect:
    """Book the current state of a dispute. Raises RetryLater."""
    report = await _placed(
        event, await _ask(event, _refund_reports(processor).dispute_report(event.object_id, event.account))
    )
    if not _is_ours(event, report.subject):
        return NOT_OURS
    return _effect(
        await _payment_of(event, report.subject),
        "dispute looked at",
        lambda conn: disputes.book(conn, tenant_id=event.tenant_id, processor_id=event.account.id, report=report),
        [report.subject],
    )


async def _placed[T: (RefundReport, DisputeReport)](event: ProcessorEvent, report: T) -> T:
    """The report with the id of our payment that it is about, which may differ from the id in its metadata. Raises RetryLater."""
    refund_id = report.refund_id if isinstance(report, RefundReport) else None
    try:
        found = await payment_of(event.account, report.subject, refund_id)
    except NotRefundable as error:
        raise RetryLater(error.detail, patient=True) from None
    if found is None:
        return report
    return replace(report, subject=replace(report.subject, tenant_id=event.tenant_id, correlation_id=found))


async def _booking(event: ProcessorEvent, report: Sequence[RefundReport]) -> Effect:
    ours = [one for one in [await _placed(event, one) for one in report] if _is_ours(event, one.subject)]
    if not ours:
        return NOT_OURS
    settled = [one for one in ours if not one.pending]
    payment_id = await _payment_of(event, ours[0].subject)
    if not settled:
        return Effect("on its way", payment_id)

    async def book(conn: AsyncConnection) -> list[live.Event]:
        told = []
        for one in sorted(settled, key=lambda one: str(one.subject.correlation_id)):  # payments are held in one order
            told += await refunds.book(conn, tenant_id=event.tenant_id, processor_id=event.account.id, report=one)
        return told

    return _effect(payment_id, "refund looked at", book, [one.subject for one in settled])


async def _payment_of(event: ProcessorEvent, subject: Subject) -> int | None:
    """The id of the payment whose page shows the event, and with which the event is erased."""
    assert subject.correlation_id is not None
    found = await subject_of(event.tenant_id, subject.correlation_id)
    return found.payment_id if found else None


def _effect(payment_id: int | None, outcome: str, book: Book, subjects: Sequence[Subject]) -> Effect:
    """`book` in the event's transaction, and its report after the commit."""
    told: list[live.Event] = []

    async def write(conn: AsyncConnection) -> None:
        try:
            told[:] = await book(conn)
        except UnknownPayment:
            raise NotFoundYet from None
        except NotRefundable as error:
            raise RetryLater(error.detail, patient=True) from None

    async def tell() -> None:
        live.publish(told)

    touches = tuple({one.correlation_id for one in subjects if one.correlation_id})
    return Effect(outcome, payment_id, write, tell, touches)


async def _ask[T](event: ProcessorEvent, question: Awaitable[T]) -> T:
    try:
        return await question
    except NotThere:
        why = f"{event.account.name} has no object with this id"
        if await is_known(event.tenant_id, event.account.id, event.object, event.object_id):
            raise RetryLater(why, patient=True) from None
        raise NotFoundYet(why) from None
    except Unanswered as error:
        raise RetryLater(f"{event.account.name} gave no clear answer ({error})", patient=True) from None


def _refund_reports(processor: Processor) -> ReportsRefunds:
    if not isinstance(processor, ReportsRefunds):
        raise RetryLater(f"processors of kind {processor.kind} do not report refunds")
    return processor


def _is_ours(event: ProcessorEvent, subject: Subject) -> bool:
    return subject.tenant_id == event.tenant_id and subject.correlation_id is not None


HANDLERS["refund."] = refund
HANDLERS["charge.refund."] = refund
HANDLERS["charge.refunded"] = charge_refunded
HANDLERS["charge.dispute."] = dispute
