"""Template tags of the queue console: addresses, state pills, labels of options, sparklines."""

import json
import re
from datetime import datetime
from typing import Any

from django import template

from queueing.models.broker import QUEUE_MODE
from registry.data import clock
from registry.edge.pages import console_address
from registry.templatetags import figures

register = template.Library()
register.filters.update(figures.register.filters)

STATES = {
    "pending": ("○", "grey", "waiting"),
    "processing": ("◔", "blue", "leased"),
    "completed": ("●", "green", "done"),
    "dead_letter": ("✕", "red", "dead letter"),
    "ended": ("–", "grey", "replayed or purged"),
}
GROUPS = {
    "Stable": ("●", "green", "keeping up"),
    "Lagging": ("◑", "amber", "lagging"),
    "Dead": ("✕", "red", "no consumer"),
}
WORDS = {
    "leaseTime": ("Lease", ""),
    "retryLimit": ("Retries", ""),
    "retryDelay": ("Retry delay", ""),
    "maxSize": ("Maximum waiting", "messages"),
    "ttl": ("Time to live", ""),
    "priority": ("Priority", "among queues of its namespace or task"),
    "delayedProcessing": ("Delivery delay", ""),
    "windowBuffer": ("Window buffer", ""),
    "retentionSeconds": ("Retention", ""),
    "completedRetentionSeconds": ("Retention when completed", ""),
    "retentionEnabled": ("Retention enabled", ""),
    "encryptionEnabled": ("Encrypted at rest", ""),
    "deadLetterQueue": ("Dead letters", ""),
    "dlqAfterMaxRetries": ("Dead letter after retries", ""),
    "maxWaitTimeSeconds": ("Maximum wait", ""),
}
SECONDS = {
    "leaseTime", "ttl", "delayedProcessing", "windowBuffer", "retentionSeconds", "completedRetentionSeconds",
    "maxWaitTimeSeconds",
}  # fmt: skip
ZERO = {"maxSize": "no limit", "priority": "0", "retryLimit": "none", "leaseTime": "0 s"}  # others: never or at once
AT_ONCE = {"retryDelay", "delayedProcessing", "windowBuffer"}
WIDTH, HEIGHT = 96, 24  # of a sparkline, in its own units


# -- Addresses ---------------------------------------------------------------------------------------------


address = console_address


@register.simple_tag(takes_context=True)
def console(context: template.Context, name: str, *args: Any, **query: Any) -> str:
    """{% console "queue" name %}: address for the current tenant. Parameters without a value are omitted."""
    given = {key: value for key, value in query.items() if value not in ("", None)}
    return address(name, *args, tenant=context["visitor"].tenant.slug, **given)


# -- Words -------------------------------------------------------------------------------------------------


@register.filter
def group(name: str) -> str:
    return "readers without a group" if name == QUEUE_MODE else name


@register.filter
def size(count: int) -> str:
    """Bytes with a unit."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


@register.filter
def text(start: bytes) -> str:
    return start.decode(errors="ignore")


@register.filter
def until(moment: datetime) -> str:
    """Time left of a lease."""
    return figures.span(max((moment - clock.now()).total_seconds(), 0))


@register.filter
def options(values: dict[str, Any]) -> list[dict[str, str]]:
    return [{"name": name, "word": WORDS[name][0], "value": option(name, value)} for name, value in values.items()]


def option(name: str, value: Any) -> str:
    """Display value of an option."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not value:
        return ZERO.get(name, "at once" if name in AT_ONCE else "never")
    if name in SECONDS:
        return figures.span(value)
    return figures.span(value / 1000) if name == "retryDelay" else f"{value:,} {WORDS[name][1]}".strip()


@register.filter
def sparkline(values: list[int]) -> str:
    """Points of an SVG polyline, the highest value at the top."""
    top = max(values, default=0) or 1
    step = WIDTH / max(len(values) - 1, 1)
    return " ".join(f"{n * step:.1f},{HEIGHT - 1 - value / top * (HEIGHT - 2):.1f}" for n, value in enumerate(values))


@register.simple_tag
def state_word(state: str) -> str:
    return STATES[state][2]


# -- Pills -------------------------------------------------------------------------------------------------


@register.inclusion_tag("registry/_pill.html")
def state_pill(state: str) -> dict[str, str]:
    return _pill(STATES[state], state)


@register.inclusion_tag("registry/_pill.html")
def group_pill(state: str) -> dict[str, str]:
    return _pill(GROUPS[state], state)


@register.inclusion_tag("registry/_pill.html")
def on_pill(stopped: bool) -> dict[str, str]:
    return _pill(
        ("◑", "amber", "stopped") if stopped else ("●", "green", "running"), "stopped" if stopped else "running"
    )


def _pill(look: tuple[str, str, str], status: str) -> dict[str, str]:
    return {"shape": look[0], "colour": look[1], "word": look[2], "status": status}


# -- JSON for people -----------------------------------------------------------------------------------------

_ESCAPES = re.compile(r"(?:\\u[0-9a-fA-F]{4})+|\\\\")  # escaped characters in a row, or an escaped backslash


def unescaped(text: str) -> str:
    r"""JSON with é for \u00e9. What JSON must escape stays as it is, and so do halves of characters."""

    def read(found: re.Match[str]) -> str:
        try:
            plain = json.loads(f'"{found[0]}"')
            return plain if plain.isprintable() and not {'"', "\\"} & set(plain) else found[0]
        except ValueError:
            return found[0]

    return _ESCAPES.sub(read, text)
