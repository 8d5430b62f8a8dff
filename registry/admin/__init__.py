"""Operators' pages of tenants, API keys, memberships, users and the audit log. The other apps have pages of their own."""

from registry.admin import audit, keys, memberships, people, tenants  # noqa: F401 - each registers its pages
