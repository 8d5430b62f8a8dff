"""Operators' pages of payments and all that is booked for them. Who may see what is decided in registry.operators."""

from django.contrib import admin

from payments.admin import (  # noqa: F401 - each registers its pages
    billing,
    dead_letters,
    inbound,
    payments,
    processors,
    reconciliation,
    refunds,
    switches,
    tenants,
)
from payments.billing.login import AdminLogin

admin.site.login_form = AdminLogin
