"""Addresses of the payments API."""

from django.urls import path

from payments.api import payments
from payments.billing import api
from payments.inbound import api as inbound_view
from payments.refunds import api as refunds_api  # noqa: F401 - its routes are ninja's
from registry.edge.handler import by_method

hot = [
    path("payments", by_method(POST=payments.accept, GET=payments.browse), name="payments"),
    path("payments/batch", by_method(POST=payments.accept_batch), name="payments_batch"),
    path("webhooks/billing", api.accept, name="webhooks_billing"),
    path("webhooks/stripe/<str:account>", inbound_view.accept, name="webhooks_stripe"),
]
