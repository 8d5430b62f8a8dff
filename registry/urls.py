"""All routes of the service. Composition: it imports every app."""

from django.contrib import admin
from django.urls import path

from payments import urls as payments
from queueing import urls as queueing
from queueing.console import urls as queue_pages
from queueing.jobs import urls as jobs
from queueing.outbound import urls as webhook_pages
from registry.edge import static_files, status
from registry.edge.api import api
from registry.edge.handler import lean
from registry.edge.navigation import EVERYBODY, NavigationEntry, register
from registry.tenants import api as tenants_api  # noqa: F401 - its routes are ninja's


def _lean(patterns: list) -> list:
    """Mark ninja's views as lean: they run on the event loop alone."""
    for pattern in patterns:
        lean(pattern.callback)
    return patterns


handler404 = "registry.edge.pages.not_found"
urlpatterns = [
    *payments.api,
    *queueing.urlpatterns,
    *jobs.api,
    path("static/<path:path>", static_files.static),
    path("health", status.health),
    path("health/live", status.live),
    path("health/ready", status.ready),
    path("metrics", status.metrics),
    path("openapi.json", status.openapi),
    path("docs", status.docs, name="docs"),
    *queue_pages.urlpatterns,
    *webhook_pages.urlpatterns,
    *jobs.pages,
    *payments.pages,  # before ninja's, which answer "" with a 404
    *_lean(api.urls[0]),
    path("admin/", admin.site.urls),
]

register(NavigationEntry(label="API", path="/docs", group="Developers", order=90, shown_to=EVERYBODY, tenant=False))
