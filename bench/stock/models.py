"""Tenants, keys, and payments with a unique id per tenant, the minimum for idempotency."""

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
    status = models.CharField(max_length=20, default="queued")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "correlation_id"], name="stock_payment_once")]
