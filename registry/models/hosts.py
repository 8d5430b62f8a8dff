"""Hosts: each `up` that runs now, with its role and its processes. registry.operators.hosts writes them."""

from datetime import timedelta
from typing import Self

from django.db import models
from django.db.models.functions import Now
from django_async_backend.db.models.base import AsyncModelMixin
from django_async_backend.db.models.manager import AsyncManager
from django_async_backend.db.models.query import QuerySet as AsyncQuerySet

HOST_SILENT_AFTER = timedelta(seconds=10)  # five missed heartbeats


class HostQuerySet(AsyncQuerySet):
    def alive(self) -> Self:
        return self.filter(heartbeat_at__gte=Now() - HOST_SILENT_AFTER)

    def silent(self) -> Self:
        """Hosts that stopped reporting and were not stopped: killed, cut off or without power."""
        return self.filter(heartbeat_at__lt=Now() - HOST_SILENT_AFTER)


class Host(AsyncModelMixin, models.Model):
    """One `up`. Its row goes when it is stopped, and a day after it fell silent."""

    name = models.CharField(max_length=63, primary_key=True, help_text="REGISTRY_HOST")
    place = models.CharField(
        max_length=32, editable=False, help_text="digest of machine and data folder: two hosts may not have one name"
    )
    role = models.CharField(max_length=20, help_text="all, web, worker or housekeeping")
    version = models.CharField(max_length=63, help_text="of its code")
    address = models.CharField(max_length=255, help_text="where it answers /health and /metrics")
    keys = models.JSONField(default=list, editable=False, help_text="digests of its secret keys")
    started_at = models.DateTimeField(db_default=Now())
    heartbeat_at = models.DateTimeField(db_default=Now())
    clock_offset = models.FloatField(db_default=0, help_text="seconds by which its clock is ahead of PostgreSQL's")
    processes = models.JSONField(default=list, help_text="name, process id, starts so far")

    objects = models.Manager()
    async_objects = AsyncManager.from_queryset(HostQuerySet)()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name
