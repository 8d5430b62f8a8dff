"""Template tag of the console's navigation."""

from typing import Any

from django import template

from registry.edge.navigation import current_entry, groups_for

register = template.Library()


@register.inclusion_tag("registry/_nav.html", takes_context=True)
def navigation(context: dict[str, Any]) -> dict[str, Any]:
    """The entries that the page's visitor may open, the menu of their tenants, and how to sign in or out."""
    request, visitor = context["request"], context["visitor"]
    entry = current_entry(request.path)
    return {
        "visitor": visitor,
        "groups": groups_for(visitor, request.path),
        "home": entry.path if entry and entry.tenant else "/",
        "csrf_token": context.get("csrf_token"),
    }
