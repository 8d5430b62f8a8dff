"""The list of a tenant's discrepancies with its processors' records, with the actions on them."""

from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from django.http import HttpResponse
from django.urls import reverse

from payments.models import Difference
from payments.money import decimal_text
from payments.pages.reversals import ROWS, answer_list, read_list
from payments.reconciliation import listing, operate
from payments.reconciliation.listing import OPEN, DiscrepancyRow
from payments.refunds.listing import ReversalPage
from payments.states import Status
from payments.templatetags.payments import money
from registry.edge.pages import PageRequest, known, nowhere, page
from registry.edge.viewer import Visitor, visitor_of

Kind = Difference.Kind

WORDS: Final = {
    OPEN: "open",
    **{kind.value: f"open: {kind.label.lower()}" for kind in Kind},
    **{one.value: one.label.lower() for one in Difference.Resolution},
}
# Shape and colour of an open one by its kind, and what it means for the money.
LOOKS: Final = {
    Kind.MISSING_HERE: ("◐", "red", "The payer was charged; it is not in your balance."),
    Kind.MISSING_THERE: ("◑", "red", "Your balance counts what may never be paid out."),
    Kind.DUPLICATE: ("◕", "red", "The payer may have been charged twice."),
    Kind.AMOUNT: ("≠", "amber", "The payer was charged what the processor booked."),
    Kind.CURRENCY: ("≠", "amber", "The payer was charged what the processor booked."),
    Kind.REFUNDED: ("↩", "amber", "The payer got back what the processor refunded."),
}


@page("GET", "HEAD")
async def discrepancies(request: PageRequest) -> HttpResponse:
    """A tenant's discrepancies, the newest first; for htmx the list alone, which is refreshed."""
    visitor = await visitor_of(request)
    if visitor is None:
        return await nowhere(request)
    context, filters = read_list(request, visitor, "discrepancy_list", WORDS)
    found: ReversalPage[DiscrepancyRow] = ReversalPage()
    if filters:
        found = await listing.discrepancies(visitor.tenant.pk, filters, limit=ROWS, before=context["before"])
    context["items"] = [_item(row, visitor) for row in found.rows]
    return answer_list(request, context, found, "discrepancies", made="Found")


@page("GET", "HEAD", "POST")
async def discrepancy_act(request: PageRequest, number: int) -> HttpResponse:
    """Confirm that a discrepancy is checked again, booked or closed, and carry it out."""
    visitor = await known(request)
    back = f"{reverse('discrepancy_list')}?{urlencode({'tenant': visitor.tenant.slug})}"
    return await operate.of_difference(request, visitor, number, back)


def _item(row: DiscrepancyRow, visitor: Visitor) -> dict[str, Any]:
    shape, colour, meaning = LOOKS[Kind(row.kind)]
    if row.resolution:
        colour, meaning = "grey", _end(row)
    return {
        "row": row,
        "look": {
            "shape": shape,
            "colour": colour,
            "word": Kind(row.kind).label.lower(),
            "status": row.resolution or row.kind,
        },
        "meaning": meaning,
        "ours": _side(row.our_amount, row.our_currency, row.our_refunded, _status(row.our_status)),
        "theirs": _side(row.their_amount, row.their_currency, row.their_refunded),
        "key": _shown_key(row.correlation_id, row.reference),
        "act": reverse("discrepancy_act", args=[row.id]) if not row.resolution and visitor.may_act else None,
    }


def _end(row: DiscrepancyRow) -> str:
    """How it was resolved: closed by ana: their test."""
    by = f" by {row.resolved_by}" if row.resolved_by else ""
    note = f": {row.note}" if row.note else ""
    return f"{Difference.Resolution(row.resolution).label.capitalize()}{by}{note}"


def _status(status: str) -> str:
    return Status(status).label.lower() if status in Status.values else status


def _side(amount: int | None, currency: str, refunded: int | None, status: str = "") -> str:
    """One side in words: R$19.90 succeeded, R$5.00 refunded."""
    if amount is None:
        return status or "no booking"
    parts = [f"{money(decimal_text(amount, currency), currency)} {status}".strip()]
    if refunded:
        parts.append(f"{money(decimal_text(refunded, currency), currency)} refunded")
    return ", ".join(parts)


def _shown_key(correlation_id: UUID | None, reference: str) -> str:
    return str(correlation_id) if correlation_id else reference
