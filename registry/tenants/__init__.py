"""Tenants: who may act for them, the audit trail, export, erasure and encryption."""
