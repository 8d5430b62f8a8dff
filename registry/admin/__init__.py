"""Operators' pages of tenants, API keys, memberships, users, the audit log, alerts and hosts. The other apps have pages of their own."""

from registry.admin import alerts, audit, hosts, keys, memberships, people, tenants  # noqa: F401 - each registers its pages
