"""Claim payments, send them to processors, and settle the outcomes."""
