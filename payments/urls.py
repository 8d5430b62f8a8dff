"""Addresses of the payments API."""

from django.urls import path

from payments import views
from payments.billing import door
from payments.refunds import api as refunds_api  # noqa: F401 - its routes are ninja's
from payments.webhooks import endpoints_api, inbound_view  # noqa: F401 - the endpoints' routes are ninja's
from registry.edge.handler import by_method

hot = [
    path("payments", by_method(POST=views.accept, GET=views.browse), name="payments"),
    path("payments/batch", by_method(POST=views.accept_batch), name="payments_batch"),
    path("webhooks/billing", door.accept, name="webhooks_billing"),
    path("webhooks/stripe/<str:account>", inbound_view.accept, name="webhooks_stripe"),
]
