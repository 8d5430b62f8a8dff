"""Retry and close refunds that workers gave up; switch refunds between inline and queued."""

from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from psycopg import AsyncConnection

from payments.models import Refund
from payments.money import decimal_text
from payments.refunds import balance, inline
from payments.refunds.balance import SQL, lock, wake
from payments.refunds.refunds import CLOSED_HERE
from payments.states import RefundStatus
from registry.data import database, live
from registry.edge.viewer import Visitor
from registry.models import Tenant
from registry.operators.confirm import Confirmed, RowAction, confirm_row
from registry.operators.decide import Done, Moved, decide, each
from registry.operators.rows import guarded
from registry.operators.switches import for_tenants
from registry.telemetry import changes

CLOSED_DETAIL = "Failed: closed by an operator"  # payers may read the timeline: it names neither operator nor reason
SWITCH = f"inline.{inline.OPERATION}"


# -- Retry and close ---------------------------------------------------------------------------------------------


async def retry(*, tenant_id: int, refund_id: int, actor: str, reason: str) -> bool:
    """Make a stopped refund due again, once. False when somebody else was faster, or it is closed."""

    async def move(conn: AsyncConnection) -> list[Moved]:
        rows = await database.rows(conn, SQL["retry"], {"tenant": tenant_id, "refund": refund_id})
        return [_moved(tenant_id, public_id) for (public_id,) in rows]

    return bool(await decide(action="refund.retry", actor=actor, reason=reason, move=move, wake=wake))


async def close(*, tenant_id: int, refund_id: int, actor: str, reason: str) -> bool:
    """Close a stopped refund as failed: its amount can be refunded again. False when it was retried or closed before."""

    lines: list[changes.ChangeLine] = []

    async def move(conn: AsyncConnection) -> list[Moved]:
        lines.clear()  # of a run whose connection was lost
        closed = await _close(conn, tenant_id, refund_id)
        if not closed:
            return []
        public_id, was, event = closed
        lines.append(_closed(event, public_id, was))
        return [_moved(tenant_id, public_id, event)]

    moved = await decide(action="refund.close", actor=actor, reason=reason, move=move)
    if moved:
        changes.record(lines)
    return bool(moved)


def _closed(event: live.Event, public_id: UUID, was: str) -> changes.ChangeLine:
    ids = {"payment": event.subject, "refund": public_id}
    return changes.change("refund", was, RefundStatus.FAILED.value, tenant=event.tenant, why=CLOSED_DETAIL, **ids)


def _moved(tenant_id: int, public_id: UUID, *events: live.Event) -> Moved:
    return Moved(target=f"refund {public_id}", tenant_id=tenant_id, events=events)


async def _close(conn: AsyncConnection, tenant_id: int, refund_id: int) -> tuple[UUID, str, live.Event] | None:
    row = {"tenant": tenant_id, "refund": refund_id}
    payments = await database.rows(conn, SQL["stopped"], row)
    if not payments:
        return None
    payment = await lock(conn, tenant_id, payments[0][0])
    # Read again under both locks: a retry or a processor's report may have been committed meanwhile.
    held = await database.rows(conn, SQL["hold_stopped"], row)
    if not held:
        return None
    [(public_id, amount, was)] = held
    return public_id, was, await _fail(conn, tenant_id, refund_id, payment.id, amount)


async def _fail(conn: AsyncConnection, tenant_id: int, refund_id: int, payment_id: int, amount: int) -> live.Event:
    closed = {"status": RefundStatus.FAILED.value, "code": CLOSED_HERE, "reference": ""}
    await database.rows(conn, SQL["close"], {"tenant": tenant_id, "refund": refund_id, **closed})
    return await balance.move(
        conn,
        tenant_id,
        payment_id,
        subject=refund_id,
        kind="refund.failed",
        detail=CLOSED_DETAIL,
        owed=-amount,
    )


# -- Guarded actions ---------------------------------------------------------------------------------------------

STOPPED = {"closed": None, "stopped_at__isnull": False}


async def _each(act: Callable[..., Awaitable[bool]], confirmed: Confirmed) -> Done:
    async def one(refund: Refund) -> bool:
        return await act(
            tenant_id=refund.tenant_id, refund_id=refund.pk, actor=confirmed.actor, reason=confirmed.reason
        )

    return await each(confirmed.action.rows, one)


retry_rows, close_rows = partial(_each, retry), partial(_each, close)

RETRY = guarded(
    "refund.retry",
    label="Retry",
    warning="Uncertain refunds are looked up at the processor first; nothing is refunded twice.",
    expects=STOPPED,
    perform=retry_rows,
)
CLOSE = guarded(
    "refund.close",
    label="Close as failed",
    warning=(
        "Their amounts can be refunded again. Look at the processor's own pages first: a refund that the processor made "
        "after all is booked when it reports it."
    ),
    expects=STOPPED,
    perform=close_rows,
)
INLINE = guarded(
    "tenant.refund_inline",
    label="Inline: the web processes send their refunds",
    warning="Within a second their requests wait for the outcome. A switch for everyone overrides this.",
    expects={"status": Tenant.Status.ACTIVE},
    perform=for_tenants(SWITCH, inline=True),
)
QUEUED = guarded(
    "tenant.refund_queued",
    label="Queued: workers send their refunds",
    warning="Within a second their requests are answered as soon as they are durable.",
    expects={"status": Tenant.Status.ACTIVE},
    perform=for_tenants(SWITCH, inline=False),
)


# -- On the console's pages --------------------------------------------------------------------------------------

ON_PAGES = {
    "retry": RowAction(
        "refund.retry",
        "Retry refund",
        "A worker sends it again; one that is uncertain is looked up at the processor first. The payer gets the money back once.",
        retry_rows,
    ),
    "close": RowAction(
        "refund.close",
        "Close refund as failed",
        "The amount can be refunded again. If the processor made it after all, a second one would pay the payer twice: look there.",
        close_rows,
    ),
}


async def of_refund(request: HttpRequest, visitor: Visitor, refund_id: UUID, back: str) -> HttpResponse:
    """The confirmation page of an action on a refund that workers gave up; once it is posted with a reason, the action.

    Raises Http404 for another verb and for a refund that is not the tenant's.
    """
    return await confirm_row(
        request,
        visitor,
        ON_PAGES,
        Refund.async_objects.filter(tenant_id=visitor.tenant.pk, public_id=refund_id),
        expects=STOPPED,
        noun="refund",
        target=f"refund {refund_id}",
        back=back,
        name_of=lambda refund: f"{decimal_text(refund.amount, refund.currency)} {refund.currency}",
    )
