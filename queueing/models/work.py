"""`WorkRow`, the columns of a row that is its own entry in a work queue (queueing.work)."""

from collections.abc import Iterable

from django.db import models
from django.db.models.functions import Now
from django_async_backend.db.models.base import AsyncModelMixin


class WorkRow(AsyncModelMixin, models.Model):
    """A row that workers claim, do and settle. Its model has `tenant`, `id` and `status`, `closed` and the index of open rows."""

    run_at = models.DateTimeField(db_default=Now())
    priority = models.SmallIntegerField(default=0, db_default=0, help_text="0 to 9, 9 first")
    attempt = models.IntegerField(default=0, db_default=0, help_text="number of the latest attempt, which only grows")
    tries_from = models.IntegerField(
        default=0, db_default=0, help_text="attempt number from which attempts are counted; a replay resets it"
    )
    lease_id = models.BigIntegerField(null=True, help_text="the worker that has claimed it")
    leased_until = models.DateTimeField(null=True)

    class Meta:
        abstract = True


def closed_in(statuses: Iterable[str], *, max_length: int = 20) -> models.GeneratedField:
    """A column `closed`: the status once no worker has anything to do, else NULL. Indexes of open rows name it in place of
    `status`, which changes at each claim."""
    return models.GeneratedField(
        expression=models.Case(*(models.When(status=s, then=models.Value(str(s))) for s in statuses)),
        output_field=models.CharField(max_length=max_length, null=True),
        db_persist=True,
    )


def open_rows(name: str, *between: str) -> models.Index:
    """The index that claims use: open rows of a tenant, or of what stands between, in the order in which they are claimed."""
    return models.Index(
        "tenant", *between, models.F("priority").desc(), "run_at", "id", condition=models.Q(closed=None), name=name
    )
