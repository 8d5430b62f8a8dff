"""Operators' pages of tenants, API keys, memberships and the audit trail. The other apps have pages of their own."""

from django.contrib import admin

from registry.admin import audit, keys, memberships, tenants  # noqa: F401 - each registers its pages

admin.site.site_header = admin.site.site_title = "Registry"
admin.site.index_title = "Operations"
admin.site.empty_value_display = "–"
