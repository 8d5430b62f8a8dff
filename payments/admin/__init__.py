"""Operators' pages of payments and everything that belongs to them. registry/operators decides who may see what."""

from django.contrib import admin

from payments.admin import (  # noqa: F401 - each registers its pages
    billing,
    dead_letters,
    differences,
    disputes,
    endpoints,
    inbound,
    ledger,
    payments,
    processors,
    reconciliation,
    refunds,
    switches,
    tenants,
)
from payments.billing.pages.login import AdminLogin

admin.site.login_form = AdminLogin
