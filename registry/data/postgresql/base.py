"""The database backend: Django's own for threads, django-async-backend's on registry.data.database's pool for the loop."""

from typing import Any

from django.db.backends.postgresql.base import DatabaseWrapper as BlockingWrapper
from django_async_backend.db.backends.postgresql.async_base import AsyncDatabaseWrapper as PooledWrapper

from registry.data import database, hosts
from registry.data.pool import Pool


class DatabaseWrapper(BlockingWrapper):
    """Connects to the primary among several hosts."""

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        if not hosts.wants_primary(conn_params):
            return super().get_new_connection(conn_params)
        return hosts.first_primary(conn_params, super().get_new_connection)


class AsyncDatabaseWrapper(PooledWrapper):
    """Takes its connections from the loop's pool."""

    @property
    def pool(self) -> Pool:
        return database.pool()

    async def close_pool(self) -> None:
        """Nothing: `end_loop` closes the pool."""
