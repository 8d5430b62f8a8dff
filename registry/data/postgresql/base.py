"""The database backend: Django's own for threads, django-async-backend's on registry.data.database's pool for the loop."""

from django.db.backends.postgresql.base import DatabaseWrapper as DatabaseWrapper
from django_async_backend.db.backends.postgresql.async_base import AsyncDatabaseWrapper as PooledWrapper

from registry.data import database
from registry.data.pool import Pool


class AsyncDatabaseWrapper(PooledWrapper):
    """Takes its connections from the loop's one pool."""

    @property
    def pool(self) -> Pool:
        return database.pools.get()

    async def close_pool(self) -> None:
        """Nothing: `end_loop` closes the pool."""
