"""How payments read on a page: amounts, states, times, the one sentence. Wording of states is in payments/states.py."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from babel.numbers import format_currency
from django import template

from payments.states import FAILED, LOOKS, PROCESSING, SUCCEEDED, TERMINAL, Look, Status

register = template.Library()

OUTCOMES = {
    "booked": ("●", "green", "booked"),
    "declined": ("✕", "red", "declined"),
    "not_booked": ("✕", "grey", "not booked"),
    "unknown": ("◑", "amber", "no answer, being asked again"),
    "": ("◔", "blue", "under way"),
}
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


@register.filter
def rate(per_second: float | None) -> str:
    """A number for a tile: 3.4, 12, 1,284."""
    value = float(per_second or 0)
    return f"{value:.1f}" if 0 < value < 9.95 else f"{value:,.0f}"


@register.filter
def whole(number: int) -> str:
    """A count: 1,284."""
    return f"{number:,}"


@register.filter
def short(identifier: Any) -> str:
    """An id cut in the middle: 3f2a9c1d…0b7e."""
    text = str(identifier)
    return text if len(text) <= 14 else f"{text[:8]}…{text[-4:]}"


@register.filter
def span(length: float | timedelta | None) -> str:
    """Seconds as a person says them: 41 ms, 3.2 s, 4 min."""
    seconds = length.total_seconds() if isinstance(length, timedelta) else float(length or 0)
    if seconds < 1:
        return f"{max(0, seconds) * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"


@register.filter
def ago(moment: datetime | str) -> str:
    """How long ago, in the words that page.js goes on with."""
    seconds = int((datetime.now(UTC) - when(moment)).total_seconds())
    if seconds < 2:
        return "just now"
    for limit, unit, size in ((60, "s", 1), (3600, "min", 60), (86_400, "h", 3600)):
        if seconds < limit:
            return f"{seconds // size} {unit} ago"
    return f"{seconds // 86_400} d ago"


@register.filter
def exact(moment: datetime | str) -> str:
    """To the millisecond, for a title."""
    return f"{when(moment).astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC"


@register.filter
def clock(moment: datetime | str) -> str:
    return f"{when(moment).astimezone(UTC):%H:%M:%S} UTC"


def when(moment: datetime | str) -> datetime:
    return datetime.fromisoformat(moment) if isinstance(moment, str) else moment


# -- States ------------------------------------------------------------------------------------------


@register.filter
def look(status: str) -> Look:
    return LOOKS[Status(status)]


@register.filter
def label(status: str) -> str:
    return Status(status).label.lower()


@register.inclusion_tag("payments/_pill.html")
def pill(status: str, size: str = "") -> dict:
    """A payment's state: word, colour and shape."""
    found = LOOKS[Status(status)]
    return {"shape": found.shape, "colour": found.colour, "word": label(status), "status": status, "size": size}


@register.inclusion_tag("payments/_pill.html")
def breaker_pill(processor: dict) -> dict:
    """A processor's state: its breaker, or what its health says while the breaker is still closed."""
    shape, colour, word = BREAKERS[processor["breaker"]]
    if processor["breaker"] == "closed" and processor["failing"]:
        shape, colour, word = "◑", "amber", "says it is failing"
    return {"shape": shape, "colour": colour, "word": word, "status": processor["breaker"]}


@register.simple_tag
def all_statuses() -> list[Status]:
    return list(Status)


@register.filter
def is_final(status: str) -> bool:
    return Status(status) in TERMINAL


@register.filter
def sentence(payment: dict) -> str:
    """What happened to a payment, in plain language."""
    status, processor = Status(payment["status"]), payment.get("processor")
    if status == SUCCEEDED:
        took = span(when(payment["updatedAt"]) - when(payment["createdAt"]))
        return f"Booked at {processor}, {took} after acceptance."
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
        if sent:  # a payment in doubt is sent again without leaving its state: then the last step holds several
            step = sent[min(number, len(sent) - 1)]
            step["attempts"].append(_attempt(attempt))
            if step["detail"] == attempt["reason"]:
                step["detail"] = ""  # said below, with the attempt
    return found


def _step(event: dict, first: dict) -> dict:
    status = Status(event["status"])
    took = span(when(event["at"]) - when(first["at"]))
    word = "accepted" if event is first else label(status)
    detail = "" if status == SUCCEEDED else event["detail"]  # the sentence above says it
    return {**event, "detail": detail, "word": word.capitalize(), "look": LOOKS[status], "after": took, "attempts": []}


def _attempt(attempt: dict) -> dict:
    outcome = attempt["outcome"] or ""
    shape, colour, word = OUTCOMES[outcome]
    code = "" if outcome == "booked" else (attempt["code"] or "").replace("_", " ")
    return {**attempt, "shape": shape, "colour": colour, "word": word, "code": code}
