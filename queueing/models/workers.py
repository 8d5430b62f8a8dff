"""Workers: the drains that run now. The rows that they claim are in the apps that own them; queueing.work.table claims them."""

from datetime import timedelta
from typing import Self

from django.db import models
from django.db.models.functions import Now
from django_async_backend.db.models.base import AsyncModelMixin
from django_async_backend.db.models.manager import AsyncManager
from django_async_backend.db.models.query import QuerySet as AsyncQuerySet

SILENT_AFTER = timedelta(seconds=5)  # five missed heartbeats: the worker is taken for dead, its leases lapse


class WorkerQuerySet(AsyncQuerySet):
    def silent(self) -> Self:
        """Workers that stopped reporting: killed, cut off or stuck."""
        return self.filter(heartbeat_at__lt=Now() - SILENT_AFTER)

    def alive(self) -> Self:
        return self.filter(heartbeat_at__gte=Now() - SILENT_AFTER)


class ChoreRun(AsyncModelMixin, models.Model):
    """The latest run of a chore (registry.data.chores): whether it ends, and what a chore that checks something found."""

    name = models.CharField(max_length=100, primary_key=True)
    created_at = models.DateTimeField(db_default=Now(), help_text="its first run")
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    succeeded_at = models.DateTimeField(null=True)
    failing_since = models.DateTimeField(null=True, help_text="the first of the failures in a row")
    error = models.CharField(max_length=300, db_default="", help_text="why the latest run failed")
    found = models.CharField(max_length=300, db_default="", help_text="what a check found wrong")

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Worker(AsyncModelMixin, models.Model):
    """A drain at work. Its id is the lease id on every row that it claimed; the row goes when the drain ends."""

    queue = models.CharField(max_length=50)
    pool = models.CharField(max_length=31, db_default="", blank=True, help_text="empty: it does what no pool takes")
    takes = models.JSONField(
        default=list, db_default=[], help_text="what its pool takes: kinds of work, and parts of them"
    )
    pool_size = models.CharField(
        max_length=7, db_default="", blank=True, help_text="MIN-MAX: how many workers its pool has; empty: unknown"
    )
    stop_requested = models.BooleanField(db_default=False, help_text="it claims nothing more, ends, and is replaced")
    hostname = models.CharField(max_length=255)
    pid = models.IntegerField()
    started_at = models.DateTimeField(db_default=Now())
    heartbeat_at = models.DateTimeField(db_default=Now())
    in_flight = models.IntegerField(default=0)
    capacity = models.IntegerField(default=0)
    processes = models.IntegerField(db_default=0, help_text="child processes that run rows now")
    places = models.IntegerField(
        db_default=0, help_text="places for child processes; tenants that hold none get further ones. 0: rows need none"
    )
    finished = models.BigIntegerField(default=0, help_text="rows brought to an outcome since the start")
    failed = models.BigIntegerField(default=0, help_text="of these, rows that will be tried again or gave up")

    objects = models.Manager()
    async_objects = AsyncManager.from_queryset(WorkerQuerySet)()

    class Meta:
        ordering = ["queue", "id"]

    def __str__(self) -> str:
        return f"{self.queue}/{self.id}"
