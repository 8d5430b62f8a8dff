"""Billing of tenants: sign-up, plans, subscriptions, dunning, and the checks before a tenant goes live."""
