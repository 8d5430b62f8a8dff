"""All routes of the service. Composition: it imports every app."""

from django.contrib import admin
from django.urls import path

from payments import urls as payments
from queueing import urls as queueing
from queueing.console import urls as queue_pages
from queueing.jobs import urls as jobs
from queueing.outbound import urls as webhook_pages
from registry.edge import reference, static_files, status
from registry.edge.api import OperationGroup, api
from registry.edge.handler import lean
from registry.edge.navigation import EVERYBODY, NavigationEntry, register
from registry.operators import urls as tenant_pages
from registry.operators.site import runbook
from registry.tenants import api as tenants_api  # noqa: F401 - its routes are ninja's


def _lean(patterns: list) -> list:
    """Mark ninja's views as lean: they run on the event loop alone."""
    for pattern in patterns:
        lean(pattern.callback)
    return patterns


handler404 = "registry.edge.pages.not_found"

# The groups of the OpenAPI document and of /docs, in their order.
api.groups = (
    OperationGroup("payments", "Payments", "Create payments, follow them, capture or cancel them, export them."),
    OperationGroup("refunds", "Refunds", "Refund a payment in part or in full."),
    OperationGroup("live", "Live updates", "Long polls: the events of a payment or a job after a sequence number."),
    OperationGroup("webhooks", "Webhooks", "Endpoints of yours that Registry calls, and their deliveries."),
    OperationGroup("inbound", "Inbound webhooks", "Addresses that Stripe calls."),
    OperationGroup("jobs", "Jobs", "Background jobs: submit, follow, cancel, retry, read the result."),
    OperationGroup("schedules", "Schedules", "Jobs that are submitted by the clock."),
    OperationGroup("queue", "Message queue", "Push, pop and acknowledge messages."),
    OperationGroup("consumer-groups", "Consumer groups", "How far each group has read, and where it reads next."),
    OperationGroup(
        "queues", "Queues and messages", "Configure queues; look at messages, partitions and traces; maintenance."
    ),
    OperationGroup("dead-letters", "Dead letters", "Messages that were given up: look at them, replay or delete them."),
    OperationGroup("queue-status", "Queue figures", "Throughput, lag and storage of the message queue."),
    OperationGroup("audit", "Audit", "The tenant's audit log."),
    OperationGroup("service", "Service", "Health, metrics and this description."),
)

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
    path("docs", reference.docs, name="docs"),
    *tenant_pages.urlpatterns,
    *queue_pages.urlpatterns,
    *webhook_pages.urlpatterns,
    *jobs.pages,
    *payments.pages,  # before ninja's, which answer "" with a 404
    *_lean(api.urls[0]),
    path("admin/runbook/", admin.site.admin_view(runbook), name="operators_runbook"),
    path("admin/", admin.site.urls),
]

register(NavigationEntry(label="API", path="/docs", group="Developers", order=90, shown_to=EVERYBODY, tenant=False))
