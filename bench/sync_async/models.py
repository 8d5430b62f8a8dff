"""Tenants, keys, payments with a unique id per tenant, and a ledger with one line per booked payment."""

from django.db import models


class Tenant(models.Model):
    slug = models.SlugField(unique=True)
    currency = models.CharField(max_length=3, default="BRL")


class ApiKey(models.Model):
    tenant = models.ForeignKey(Tenant, models.CASCADE)
    digest = models.CharField(max_length=64, unique=True)


class Payment(models.Model):
    tenant = models.ForeignKey(Tenant, models.CASCADE, db_index=False)
    correlation_id = models.UUIDField()
    amount = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    status = models.CharField(max_length=20, default="processing")
    error = models.CharField(max_length=200, default="")
    requested_at = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "correlation_id"], name="sync_payment_once")]


class LedgerEntry(models.Model):
    payment = models.OneToOneField(Payment, models.CASCADE)
    amount = models.BigIntegerField()
    at = models.DateTimeField(auto_now_add=True)
