"""The database backend: Django's own for threads, django-async-backend's on registry.data.database's pool for the loop."""

from django.db.backends.postgresql.base import DatabaseWrapper as DatabaseWrapper
from django_async_backend.db.backends.postgresql.async_base import AsyncDatabaseWrapper as PooledWrapper

from registry.data import database


class AsyncDatabaseWrapper(PooledWrapper):
    """Takes its connections from the loop's one pool."""

    @property
    def pool(self) -> database.Pool:
        return database.pool()

    async def close_pool(self) -> None:
        """The pool has one owner, registry.data.database.close."""
