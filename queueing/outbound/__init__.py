"""Outbound webhooks (Standard Webhooks): endpoints, fan-out of events, deliveries, signing, and a test kit for receivers."""
