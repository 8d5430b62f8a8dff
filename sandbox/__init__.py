"""Stripe simulator over HTTP, for demos and tests: wire format, test cards, webhooks and fault injection.

It imports nothing of the service and needs no database: it is a separate server, like Stripe.
"""
