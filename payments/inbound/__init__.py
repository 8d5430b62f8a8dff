"""Inbound events of processors: receive webhooks, handle their events, and fetch events that were not delivered."""
