"""Cells of the lists of payments: states and amounts."""

from django.utils.html import format_html
from django.utils.safestring import SafeString

from payments.money import grouped_text
from payments.states import SHOWN_LOOKS, shown_as
from registry.operators.cells import pill


def status_pill(status: str) -> SafeString:
    """The pill of a status, or of what took a payment's money back."""
    shown = shown_as(status)
    look = SHOWN_LOOKS[shown]
    return pill(look.shape, look.colour, shown.label.lower())


def money(units: int | None, currency: str) -> SafeString | str:
    if units is None:
        return "–"
    return format_html('<span class="amount">{}</span>', grouped_text(units, currency))
