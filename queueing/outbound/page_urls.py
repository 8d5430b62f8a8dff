"""Addresses of the pages of webhooks. The API's are ninja's: endpoints_api.py."""

from django.urls import path

from queueing.outbound import pages as outbound_pages

urlpatterns = [
    path("webhooks", outbound_pages.endpoints, name="webhooks"),
    path("webhooks/kit", outbound_pages.kit, name="webhook_kit"),
    path("webhooks/<uuid:uuid>", outbound_pages.endpoint, name="webhook_endpoint"),
    path("webhooks/deliveries/<int:number>", outbound_pages.delivery, name="webhook_delivery"),
]
