"""Claims of processes on work that one process does for the service."""

from django.db import models
from django_async_backend.db.models.base import AsyncModelMixin


class Lease(AsyncModelMixin, models.Model):
    """A process's claim on a piece of work, by the database's clock. registry.data.lease takes, renews and releases it."""

    name = models.CharField(max_length=60, primary_key=True)
    holder = models.CharField(max_length=300, help_text="host, process and a random part")
    until = models.DateTimeField(help_text="the holder renews it; from then on another process may take it")

    def __str__(self) -> str:
        return f"{self.name}: {self.holder}"
