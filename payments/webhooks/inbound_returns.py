"""Events about refunds and disputes: the object is fetched, and what it says now is booked with the event's own end."""

from collections.abc import Awaitable, Callable, Sequence

from psycopg import AsyncConnection

from payments import disputes, refunds
from payments.errors import NotRefundable, UnknownPayment
from payments.processors.base import Processor, Unanswered
from payments.processors.news import RefundNews, Subject, TellsOfReturns
from payments.webhooks.handlers import HANDLERS, Effect, Event, Later
from registry import live

NOT_OURS = Effect("not ours")

type Book = Callable[[AsyncConnection], Awaitable[Sequence[live.Event]]]


async def refund(event: Event, processor: Processor) -> Effect:
    """Book a refund as it stands, whoever asked for it. Raises Later."""
    return _booking(event, [await _ask(event, _teller(processor).refund_news(event.object_id, event.account))])


async def charge_refunded(event: Event, processor: Processor) -> Effect:
    """Book all refunds of the charge: the event does not say which of them it is about. Raises Later."""
    return _booking(event, await _ask(event, _teller(processor).refunds_of_charge(event.object_id, event.account)))


async def dispute(event: Event, processor: Processor) -> Effect:
    """Write down a dispute as it stands. Raises Later."""
    news = await _ask(event, _teller(processor).dispute_news(event.object_id, event.account))
    if not _is_ours(event, news.subject):
        return NOT_OURS
    return _effect(
        "dispute looked at",
        lambda conn: disputes.book(conn, tenant_id=event.tenant_id, processor_id=event.account.id, news=news),
        [news.subject],
    )


def _booking(event: Event, news: Sequence[RefundNews]) -> Effect:
    ours = [one for one in news if _is_ours(event, one.subject)]
    if not ours:
        return NOT_OURS
    settled = [one for one in ours if not one.pending]
    if not settled:
        return Effect("on its way")

    async def book(conn: AsyncConnection) -> list[live.Event]:
        told = []
        for one in sorted(settled, key=lambda one: str(one.subject.correlation_id)):  # payments are held in one order
            told += await refunds.book(conn, tenant_id=event.tenant_id, processor_id=event.account.id, news=one)
        return told

    return _effect("refund looked at", book, [one.subject for one in settled])


def _effect(outcome: str, book: Book, subjects: Sequence[Subject]) -> Effect:
    """`book` in the event's transaction, and its news after the commit."""
    told: list[live.Event] = []

    async def write(conn: AsyncConnection) -> None:
        try:
            told[:] = await book(conn)
        except UnknownPayment:
            raise Later("there is no such payment yet") from None
        except NotRefundable as error:
            raise Later(error.detail, patient=True) from None

    async def tell() -> None:
        live.tell(told)

    touches = tuple({one.correlation_id for one in subjects if one.correlation_id})
    return Effect(outcome, None, write, tell, touches)


async def _ask[T](event: Event, question: Awaitable[T]) -> T:
    try:
        return await question
    except Unanswered as error:
        raise Later(f"{event.account.name} gave no clear answer ({error})", patient=True) from None


def _teller(processor: Processor) -> TellsOfReturns:
    if not isinstance(processor, TellsOfReturns):
        raise Later(f"processors of kind {processor.kind} tell nothing of refunds")
    return processor


def _is_ours(event: Event, subject: Subject) -> bool:
    return subject.tenant_id == event.tenant_id and subject.correlation_id is not None


HANDLERS["refund."] = refund
HANDLERS["charge.refund."] = refund
HANDLERS["charge.refunded"] = charge_refunded
HANDLERS["charge.dispute."] = dispute
