"""Operators' pages of payments and all that is booked for them. Who may see what is decided in registry.operators."""

from payments.admin import deadletters, payments, processors, refunds, reconciliation, switches, tenants  # noqa: F401 - each registers its pages
