"""The admin site: its first page lists the models by what one does with them. It imports no admin page, which all need it to be registered."""

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from registry.operators.sections import OTHER, Section


class OperationsSite(admin.AdminSite):
    """Registry's admin. settings.INSTALLED_APPS names it by registry.apps.AdminConfig."""

    site_header = site_title = "Registry"
    index_title = "Operations"
    empty_value_display = "–"
    enable_nav_sidebar = (
        False  # it would take a fifth of the width from every list; the menu in the header has the models
    )

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """Sections in place of apps; with `app_label`, Django's own list of that app."""
        found = super().get_app_list(request, app_label)
        if app_label is not None:
            return found
        sections: dict[Section, list[Any]] = {}
        for app in found:
            for model in app["models"]:
                page = self._registry[model["model"]]
                model["purpose"] = getattr(page, "purpose", "")
                sections.setdefault(getattr(page, "section", OTHER), []).append((getattr(page, "place", 99), model))
        return list(self._apps(sections))

    def _apps(self, sections: dict[Section, list[Any]]) -> Iterator[dict[str, Any]]:
        """In the shape of Django's list of apps, which its templates show."""
        home = reverse("admin:index", current_app=self.name)
        for section in sorted(sections):
            models = [model for _, model in sorted(sections[section], key=lambda pair: (pair[0], pair[1]["name"]))]
            yield {
                "name": section.title,
                "purpose": section.purpose,
                "app_label": section.anchor,
                "app_url": f"{home}#{section.anchor}",
                "has_module_perms": True,
                "models": models,
            }

    def app_index(
        self, request: HttpRequest, app_label: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Apps have no page of their own: the first page has all sections."""
        return redirect("admin:index")
