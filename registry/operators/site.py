"""The admin site: its first page says what needs attention, then lists the models by what one does with them.

It imports no admin page: registering one loads it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse

from registry.data import clock
from registry.operators.alerts.home import OpenAlert, combined, open_alerts_sync
from registry.operators.attention import Item, Severity, report_sync
from registry.operators.cells import exact, pill, since_then
from registry.operators.runbook import sections
from registry.operators.scope import scope_of
from registry.operators.sections import OTHER, Section

LOOKS = {
    Severity.CRITICAL: ("!", "red", "critical"),
    Severity.WARNING: ("◑", "amber", "warning"),
    Severity.NOTICE: ("○", "blue", "notice"),
}
UNKNOWN = ("?", "violet", "unknown")


class OperationsSite(admin.AdminSite):
    """Registry's admin. settings.INSTALLED_APPS names it by registry.apps.AdminConfig."""

    site_header = site_title = "Registry"
    index_title = "Operations"
    empty_value_display = "–"
    enable_nav_sidebar = (
        False  # it would take a fifth of the width from every list; the menu in the header has the models
    )

    # -- The first page ------------------------------------------------------------------------------------------

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        """What needs attention of the person's tenants, a superuser's of the service too. The page asks again for that part."""
        scope = scope_of(request)
        found = report_sync(None if scope.everything else scope.tenants())
        lines = combined(found, open_alerts_sync() if scope.everything else [])
        context = {
            "attention": [_shown(*line) for line in lines if line[0].severity is not Severity.WELL],
            "well": [_shown(*line) for line in lines if line[0].severity is Severity.WELL],
            "read_at": exact(clock.now()),
        }
        if request.headers.get("HX-Request"):
            return TemplateResponse(request, "admin/_attention.html", context)
        return super().index(request, {**context, **(extra_context or {})})

    # -- Models --------------------------------------------------------------------------------------------------

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """Sections in place of apps; with `app_label`, Django's own list of that app."""
        found = super().get_app_list(request, app_label)
        if app_label is not None:
            return found
        grouped: dict[Section, list[Any]] = {}
        for app in found:
            for model in app["models"]:
                page = self._registry[model["model"]]
                model["purpose"] = getattr(page, "purpose", "")
                grouped.setdefault(getattr(page, "section", OTHER), []).append((getattr(page, "place", 99), model))
        return list(self._apps(grouped))

    def _apps(self, grouped: dict[Section, list[Any]]) -> Iterator[dict[str, Any]]:
        """In the shape of Django's list of apps, which its templates show."""
        home = reverse("admin:index", current_app=self.name)
        for section in sorted(grouped):
            models = [model for _, model in sorted(grouped[section], key=lambda pair: (pair[0], pair[1]["name"]))]
            yield {
                "name": section.title,
                "purpose": section.purpose,
                "app_label": section.anchor,
                "app_url": f"{home}#{section.anchor}",
                "has_module_perms": True,
                "models": models,
            }

    def app_index(  # type: ignore[override]  # it redirects
        self, request: HttpRequest, app_label: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Apps have no page of their own: the first page has all sections."""
        return redirect("admin:index")


def runbook(request: HttpRequest) -> HttpResponse:
    """The page of the runbook: what each item means, what to check and what to do."""
    context = {**admin.site.each_context(request), "title": "Runbook", "sections": list(sections().values())}
    return TemplateResponse(request, "admin/runbook.html", context)


def _shown(item: Item, alerts: Sequence[OpenAlert]) -> dict[str, Any]:
    """An item and the alerts of its name, as the template shows them."""
    section = sections().get(item.name)
    look: Sequence[str] = LOOKS.get(item.severity, UNKNOWN) if item.known else UNKNOWN
    return {
        "name": item.name,
        "look": pill(*look),
        "sentence": item.sentence,
        "since": since_then(item.since) if item.since else "",
        "action": item.action,
        "address": item.admin or item.page,
        "line": section.line if section and item.known else "",
        "alerts": alerts,
    }
