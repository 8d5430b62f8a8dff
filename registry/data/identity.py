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

from registry.data import database

log = logging.getLogger(__name__)

CONNECT_LIMIT = 2  # seconds for the database to let us in; a process that starts waits for it
ANSWER_LIMIT = 2  # seconds for its answer
SQL = database.statements(Path(__file__).parent / "sql" / "identity.sql")

_known: dict[str, str] = {}  # address of the database → name


def name() -> str:
    """The service's name. Raises ImproperlyConfigured where neither the database nor the data folder can say it."""
    if settings.REGISTRY_ID:
        return settings.REGISTRY_ID
    address = _address()
    if address not in _known:
        _known[address] = _asked(address) or _kept(address)
    return _known[address]


def prefix() -> str:
    """What the names of keys and channels in Redis begin with."""
    return f"registry:{name()}"


def _address() -> str:
    found = connection.settings_dict
    return f"{found['HOST']}:{found['PORT']}/{found['NAME']}"


def _asked(address: str) -> str:
    """By a connection of its own, outside of any loop and pool; empty while the database is away."""
    parameters: dict[str, Any] = connection.get_connection_params()
    kept = {key: value for key, value in parameters.items() if key not in ("cursor_factory", "prepare_threshold")}
    kept |= {"connect_timeout": CONNECT_LIMIT, "options": f"-c statement_timeout={ANSWER_LIMIT * 1000}"}
    try:
        with psycopg.connect(**kept, autocommit=True) as conn:
            row = conn.execute(SQL["name"]).fetchone()
    except psycopg.Error as error:
        log.warning("the database does not say its name", extra={"error": str(error)[:200]})
        return ""
    if row is None:
        return ""
    _keep(address, row[0])
    return row[0]


# -- In the data folder ----------------------------------------------------------------------------------------


def _file(address: str) -> Path:
    return Path(settings.REGISTRY_DATA) / f"identity-{hashlib.sha256(address.encode()).hexdigest()[:12]}"


def _keep(address: str, found: str) -> None:
    """By renaming, so that a process beside us never reads half a name."""
    path = _file(address)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        if not path.exists() or path.read_text() != found:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_text(found)
            fresh.rename(path)
    except OSError as error:
        log.warning("the database's name cannot be kept", extra={"error": repr(error)})


def _kept(address: str) -> str:
    try:
        return _file(address).read_text()
    except OSError:
        raise ImproperlyConfigured(
            "the database cannot be asked for the service's name, and was never asked from this data folder: start when it "
            "can be reached and `manage.py migrate` has run, or set REGISTRY_ID"
        ) from None
