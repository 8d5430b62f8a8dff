"""Plays Stripe over HTTP, for demos and tests: its wire format, its test cards, its webhooks, and trouble on command.

Nothing of the service is imported here, and no database is needed: it runs beside the service as Stripe would.
"""
