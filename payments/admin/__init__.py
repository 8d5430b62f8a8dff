"""Operators' pages of payments and all that is booked for them. Who may see what is decided in registry.operators."""

from payments.admin import (  # noqa: F401 - each registers its pages
    billing,
    deadletters,
    inbound,
    outbound,
    payments,
    processors,
    reconciliation,
    refunds,
    switches,
    tenants,
)
