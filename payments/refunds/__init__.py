"""Refunds, and the disputes that processors report."""
