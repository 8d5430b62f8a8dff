"""Checks of a pooler such as PgBouncer between the service and PostgreSQL: `up` logs what they find."""

from pathlib import Path

from django.conf import settings
from django.db import connection

from registry.data import database

SQL = database.statements(Path(__file__).parent / "sql" / "pooling.sql")

UNDECLARED = (
    "DATABASE_URL leads to a pooler. If it is in transaction mode, set DATABASE_DIRECT_URL or DB_TRANSACTION_POOLING: workers"
    " would listen on sessions that belong to others"
)
UNLIMITED = (
    "the pooler's sessions have no statement_timeout: set it in its configuration (connect_query), else a statement of the ORM"
    " may run for ever"
)
NO_LISTEN = "DATABASE_DIRECT_URL is not set: workers poll five times a second instead of being notified"


def warnings() -> list[str]:
    """Warnings about a pooler between the service and PostgreSQL, one sentence each. It blocks: call it in a thread."""
    with connection.cursor() as cursor:
        # A pooler names a process of its own at the start of a session, so that it can pass on a request to cancel.
        announced = cursor.connection.info.backend_pid
        cursor.execute(SQL["session"])
        serving, limit = cursor.fetchone()
    if not settings.DB_TRANSACTION_POOLING:
        return [UNDECLARED] if serving != announced else []
    return [*([UNLIMITED] if not limit else []), *([NO_LISTEN] if not settings.DATABASE_DIRECT else [])]
