"""Template filters for payments: amounts, states, times. The wording of states is in payments/states.py."""

from decimal import Decimal
from typing import Any

from babel.numbers import format_currency
from django import template

from payments.states import (
    FAILED,
    LOOKS,
    PROCESSING,
    REFUND_LOOKS,
    REQUIRES_ACTION,
    SHOWN_LOOKS,
    SUCCEEDED,
    TERMINAL,
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

OUTCOMES = {
    "booked": ("●", "green", "booked"),
    "declined": ("✕", "red", "declined"),
    "not_booked": ("✕", "grey", "not booked"),
    "unknown": ("◑", "amber", "no answer yet, looked up again"),
    "requires_action": ("◐", "violet", "waits for an action"),
    "canceled": ("–", "grey", "canceled"),
    "": ("◔", "blue", "under way"),
}
RETURNS = {
    "refund.created": REFUND_LOOKS[RefundStatus.OWED],
    "refund.returned": REFUND_LOOKS[RefundStatus.RETURNED],
    "refund.failed": REFUND_LOOKS[RefundStatus.FAILED],
}
DISPUTED = REFUND_LOOKS[RefundStatus.UNCERTAIN]
BREAKERS = {
    "closed": ("●", "green", "working"),
    "half_open": ("◑", "amber", "being tried again"),
    "open": ("✕", "red", "breaker open"),
}


# -- Words and figures -------------------------------------------------------------------------------


@register.filter
def money(amount: str | Decimal, currency: str) -> str:
    """ "19.90" and "BRL" as R$19.90."""
    return format_currency(Decimal(amount), currency, locale="en")


@register.filter
def settled(payment: dict[str, Any]) -> bool:
    """Whether its state is final."""
    return payment["status"] in TERMINAL


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
def breaker_pill(processor: dict) -> dict:
    """A processor's state: its breaker, or its health report while the breaker is still closed."""
    shape, colour, word = BREAKERS[processor["breaker"]]
    if processor["breaker"] == "closed" and processor["failing"]:
        shape, colour, word = "◑", "amber", "says it is failing"
    return {"shape": shape, "colour": colour, "word": word, "status": processor["breaker"]}


@register.simple_tag
def all_statuses() -> list[Status]:
    return list(Status)


@register.simple_tag
def all_shown() -> list[ShownState]:
    """Every state that a pill shows and a filter offers: statuses and reversals."""
    return list(SHOWN_LOOKS)


@register.filter
def is_final(status: str) -> bool:
    return Status(status) in TERMINAL


@register.filter
def sentence(payment: dict) -> str:
    """One sentence on what happened to a payment."""
    status, processor = Status(payment["status"]), payment.get("processor")
    if status == SUCCEEDED:
        took = span(when(payment["updatedAt"]) - when(payment["createdAt"]))
        booked = f"Booked at {processor}, {took} after acceptance."
        if not nonzero(payment.get("refunded")):
            return booked
        return f"{booked} Refunded {money(payment['refunded'], payment['currency'])}."
    if status == REQUIRES_ACTION and (payment.get("attempts") or [{}])[-1].get("code") == "requires_capture":
        return "Authorized. The amount is held until the seller collects it."
    if status == PROCESSING and processor:
        return f"On its way to {processor}."
    if status == FAILED and payment.get("code"):
        return f"{LOOKS[status].sentence} The reason given: {payment['code'].replace('_', ' ')}."
    return LOOKS[status].sentence


# -- Timeline ------------------------------------------------------------------------------------------


@register.filter
def steps(payment: dict) -> list[dict]:
    """The timeline with each attempt under the step that sent it, and the time since acceptance."""
    found = [_step(event, payment["timeline"][0]) for event in payment["timeline"]]
    sent = [step for step in found if step["status"] == PROCESSING]
    for number, attempt in enumerate(payment["attempts"]):
        if (
            sent
        ):  # an uncertain payment is sent again without a change of state: the last step then has several attempts
            step = sent[min(number, len(sent) - 1)]
            step["attempts"].append(_attempt(attempt))
            if step["detail"] == attempt["reason"]:
                step["detail"] = ""  # shown below, with the attempt
    return found


def _step(event: dict, first: dict) -> dict:
    status = Status(event["status"])
    took = span(when(event["at"]) - when(first["at"]))
    word = "accepted" if event is first else label(status)
    detail = "" if status == SUCCEEDED else event["detail"]  # shown in the sentence above
    shown = LOOKS[status]
    if kind := event.get("kind"):  # an event without a change of status
        word, shown, detail = kind.replace(".", " "), RETURNS.get(kind, DISPUTED), event["detail"]
    return {**event, "detail": detail, "word": word.capitalize(), "look": shown, "after": took, "attempts": []}


def _attempt(attempt: dict) -> dict:
    outcome = attempt["outcome"] or ""
    shape, colour, word = OUTCOMES[outcome]
    code = "" if outcome == "booked" else (attempt["code"] or "").replace("_", " ")
    return {**attempt, "shape": shape, "colour": colour, "word": word, "code": code}
