"""Template filters for payments: amounts, states, times. The wording of states is in payments/states.py."""

from decimal import Decimal

from babel.numbers import format_currency
from django import template

from payments.states import (
    LOOKS,
    PROCESSING,
    REFUND_LOOKS,
    SHOWN_LOOKS,
    SUCCEEDED,
    Look,
    RefundStatus,
    ShownState,
    Status,
    shown_as,
)
from registry.templatetags import figures
from registry.templatetags.figures import span, when

register = template.Library()
register.filters.update(figures.register.filters)  # one {% load %} is enough for a template of payments

DISPUTE_LOOKS = {
    "needs_response": ("▲", "amber", "needs response"),
    "under_review": ("◔", "blue", "under review"),
    "won": ("●", "green", "won"),
    "lost": ("▼", "red", "lost"),
}
BREAKERS = {
    "closed": ("●", "green", "working"),
    "half_open": ("◑", "amber", "being tried again"),
    "open": ("✕", "red", "breaker open"),
}
ACCOUNTS = {"processor": "Held by the processor", "fees": "Kept by the processor", "balance": "Owed to you"}


# -- Words and figures -------------------------------------------------------------------------------


@register.filter
def money(amount: str | Decimal, currency: str) -> str:
    """ "19.90" and "BRL" as R$19.90."""
    return format_currency(Decimal(amount), currency, locale="en")


@register.filter
def less(amount: str | Decimal, currency: str) -> str:
    """An amount that is subtracted: -R$1.00; nothing is R$0.00."""
    return money(-Decimal(amount) if nonzero(amount) else "0", currency)


@register.filter
def account(name: str) -> str:
    """An account of the ledger, for the tenant that reads it."""
    return ACCOUNTS[name]


@register.filter
def nonzero(amount: str | Decimal | None) -> bool:
    return Decimal(amount or 0) != 0


@register.filter
def share(part: float | str | Decimal | None) -> str:
    """0.05 as 5 %, 0.0525 as 5.25 %."""
    return f"{round(float(part or 0) * 100, 2):g} %"


@register.filter
def percent(part: float | None) -> str:
    return f"{percent_number(part)} %"


@register.filter
def percent_number(part: float | None) -> int:
    return round(float(part or 0) * 100)


@register.filter
def milliseconds(length: float | None) -> str:
    return span(float(length or 0) / 1000)


@register.filter("bin")
def bin_(seconds: int) -> str:
    """The length of a chart's point, after "per": minute, 15 min, hour, 4 h."""
    return {60: "minute", 3600: "hour"}.get(seconds) or (
        f"{seconds // 60} min" if seconds < 3600 else f"{seconds // 3600} h"
    )


# -- States ------------------------------------------------------------------------------------------


@register.filter
def look(state: str) -> Look:
    return SHOWN_LOOKS[shown_as(state)]


@register.filter
def label(state: str) -> str:
    return shown_as(state).label.lower()


@register.inclusion_tag("registry/_pill.html")
def pill(state: str, size: str = "") -> dict:
    """A payment's shown state, a status or a reversal: word, colour and shape."""
    found = look(state)
    return {"shape": found.shape, "colour": found.colour, "word": label(state), "status": state, "size": size}


@register.inclusion_tag("registry/_pill.html")
def refund_pill(status: str, stopped: bool = False) -> dict:
    """A refund's state; of one that workers gave up, that it needs attention."""
    found = REFUND_LOOKS[RefundStatus(status)]
    word = RefundStatus(status).label.lower()
    return {"shape": found.shape, "colour": "red" if stopped else found.colour, "word": word, "status": status}


@register.inclusion_tag("registry/_pill.html")
def dispute_pill(state: str) -> dict:
    """A dispute's state: who has to act, or how it ended."""
    shape, colour, word = DISPUTE_LOOKS[state]
    return {"shape": shape, "colour": colour, "word": word, "status": state}


@register.filter
def words(code: str) -> str:
    """A name of a state or of a reason, for people."""
    return code.replace("_", " ")


@register.simple_tag
def all_statuses() -> list[Status]:
    return list(Status)


@register.simple_tag
def all_shown() -> list[ShownState]:
    """Every state that a pill shows and a filter offers: statuses and reversals."""
    return list(SHOWN_LOOKS)


@register.filter
def sentence(payment: dict) -> str:
    """One sentence on what happened to a payment that goes as expected."""
    status, processor = Status(payment["status"]), payment.get("processor")
    if status == SUCCEEDED:
        took = span(when(payment["updatedAt"]) - when(payment["createdAt"]))
        return f"Booked at {processor}, {took} after acceptance."
    if status == PROCESSING and processor:
        return f"On its way to {processor}."
    return LOOKS[status].sentence
