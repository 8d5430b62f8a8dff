"""Addresses of the pages of outbound webhooks. Routes of the API are declared with their views."""

from django.urls import path

from queueing.outbound import api, pages  # noqa: F401 - the API's routes are ninja's
from registry.edge.navigation import NavigationEntry, register

urlpatterns = [
    path("webhooks", pages.endpoints, name="webhooks"),
    path("webhooks/kit", pages.kit, name="webhook_kit"),
    path("webhooks/callbacks", pages.callbacks, name="webhook_callbacks"),
    path("webhooks/<uuid:uuid>", pages.endpoint, name="webhook_endpoint"),
    path("webhooks/deliveries/<int:number>", pages.delivery, name="webhook_delivery"),
]

register(NavigationEntry(label="Webhooks", path="/webhooks", group="Developers", order=20))
