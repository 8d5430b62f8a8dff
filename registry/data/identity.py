"""Which service this is: a name that its database was given once, and that every name in Redis begins with.

Two services on one Redis would otherwise run each other's jobs, hear each other's live messages and store each other's
payments. The name is asked of the database once per process. While the database is away, the data folder says what it was.
"""

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

log = logging.getLogger(__name__)

CONNECT_LIMIT = 2  # seconds for the database to let us in; a process that starts waits for it
ANSWER_LIMIT = 2  # seconds for its answer
NAME = "SELECT name FROM registry_identity"

_known: dict[str, str] = {}  # database → name


def name() -> str:
    """The service's name. Raises ImproperlyConfigured where neither the database nor the data folder can say it."""
    if settings.REGISTRY_ID:
        return settings.REGISTRY_ID
    database = _database()
    if database not in _known:
        _known[database] = _asked(database) or _kept(database)
    return _known[database]


def prefix() -> str:
    """What the names of keys and channels in Redis begin with."""
    return f"registry:{name()}"


def _database() -> str:
    found = connection.settings_dict
    return f"{found['HOST']}:{found['PORT']}/{found['NAME']}"


def _asked(database: str) -> str:
    """By a connection of its own, outside of any loop and pool; empty while the database is away."""
    parameters: dict[str, Any] = connection.get_connection_params()
    kept = {key: value for key, value in parameters.items() if key not in ("cursor_factory", "prepare_threshold")}
    kept |= {"connect_timeout": CONNECT_LIMIT, "options": f"-c statement_timeout={ANSWER_LIMIT * 1000}"}
    try:
        with psycopg.connect(**kept, autocommit=True) as conn:
            row = conn.execute(NAME).fetchone()
    except psycopg.Error as error:
        log.warning("the database does not say its name", extra={"error": str(error)[:200]})
        return ""
    if row is None:
        return ""
    _keep(database, row[0])
    return row[0]


# -- In the data folder ----------------------------------------------------------------------------------------


def _file(database: str) -> Path:
    return Path(settings.REGISTRY_DATA) / f"identity-{hashlib.sha256(database.encode()).hexdigest()[:12]}"


def _keep(database: str, found: str) -> None:
    """By renaming, so that a process beside us never reads half a name."""
    path = _file(database)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        if not path.exists() or path.read_text() != found:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_text(found)
            fresh.rename(path)
    except OSError as error:
        log.warning("the database's name cannot be kept", extra={"error": repr(error)})


def _kept(database: str) -> str:
    try:
        return _file(database).read_text()
    except OSError:
        raise ImproperlyConfigured(
            "the database cannot be asked for the service's name, and was never asked from this data folder: start when it "
            "can be reached and `manage.py migrate` has run, or set REGISTRY_ID"
        ) from None
