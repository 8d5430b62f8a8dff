"""Operators' pages of payments and all that is booked for them. Who may see what is decided in registry.operators."""

from payments.admin import billing, deadletters, outbound, payments, processors, reconciliation, refunds, switches, tenants  # noqa: F401 - each registers its pages
