"""Intake: requests become durable payments, many with one commit."""
