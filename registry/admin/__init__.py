"""Operators' pages of tenants, API keys, memberships, users, the audit log and alerts. The other apps have pages of their own."""

from registry.admin import alerts, audit, keys, memberships, people, tenants  # noqa: F401 - each registers its pages
