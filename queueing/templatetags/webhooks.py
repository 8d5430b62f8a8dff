"""Template tags and filters of the webhooks' pages: states as pills, filters of event types in words."""

from django import template

from queueing.templatetags import queues

register = template.Library()
register.filters.update(queues.register.filters)
register.tags.update(queues.register.tags)

ENDPOINTS = {
    "active": ("●", "green", "working"),
    "failing": ("◑", "amber", "failing"),
    "disabled": ("–", "grey", "switched off"),
}
DELIVERIES = {
    "pending": ("◔", "blue", "to be delivered"),
    "held": ("○", "grey", "waits its turn"),
    "delivered": ("●", "green", "delivered"),
    "dead": ("✕", "red", "failed"),
    "noted": ("–", "grey", "note"),
}


@register.inclusion_tag("registry/_pill.html")
def endpoint_pill(state: str) -> dict[str, str]:
    return _pill(ENDPOINTS[state], state)


@register.inclusion_tag("registry/_pill.html")
def delivery_pill(status: str, tries: int = 0) -> dict[str, str]:
    shape, colour, word = DELIVERIES[status]
    if status == "pending" and tries:
        shape, colour, word = "◑", "amber", "tried again"
    return _pill((shape, colour, word), status)


@register.inclusion_tag("registry/_pill.html")
def check_pill(passed: bool) -> dict[str, str]:
    return _pill(("●", "green", "passed") if passed else ("✕", "red", "failed"), "passed" if passed else "failed")


@register.filter
def wanted(events: list[str]) -> str:
    """An endpoint's event filters as text."""
    return "everything" if "*" in events else ", ".join(f"{one}*" if one.endswith(".") else one for one in events)


def _pill(look: tuple[str, str, str], status: str) -> dict[str, str]:
    return {"shape": look[0], "colour": look[1], "word": look[2], "status": status}
