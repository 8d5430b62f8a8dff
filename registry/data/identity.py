"""The name of the service: generated once per database, prefix of every key and channel in Redis.

Without the prefix two services on one Redis would run each other's jobs, receive each other's live messages and store each
other's payments. A process reads the name once, from the database or, while that is unavailable, from the data folder.
"""

import hashlib
import logging
import os
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

from registry.data import database

log = logging.getLogger(__name__)

CONNECT_LIMIT = 2  # seconds to connect; the start of a process waits for it
ANSWER_LIMIT = 2  # seconds for the statement
SQL = database.statements(Path(__file__).parent / "sql" / "identity.sql")


def name() -> str:
    """The service's name. Raises ImproperlyConfigured when neither the database nor the data folder has it."""
    return settings.REGISTRY_ID or read_name(_address())


@cache
def read_name(address: str) -> str:
    """The name in the database at `address`, or the copy in the data folder."""
    return _from_database(address) or _from_folder(address)


def prefix() -> str:
    """The prefix of keys and channels in Redis."""
    return f"registry:{name()}"


def _address() -> str:
    return "{HOST}:{PORT}/{NAME}".format_map(connection.settings_dict)


def _from_database(address: str) -> str:
    """Read the name over a connection outside of any loop and pool; empty while the database is unavailable."""
    parameters: dict[str, Any] = connection.get_connection_params()
    own = {key: value for key, value in parameters.items() if key not in ("cursor_factory", "prepare_threshold")}
    own |= {"connect_timeout": CONNECT_LIMIT, "target_session_attrs": "any"}  # a standby knows it too
    if not settings.DB_TRANSACTION_POOLING:  # a pooler refuses it
        own |= {"options": f"-c statement_timeout={ANSWER_LIMIT * 1000}"}
    try:
        with psycopg.connect(**own, autocommit=True) as conn:
            row = conn.execute(SQL["name"]).fetchone()
    except psycopg.Error as error:
        log.warning("the database does not say its name", extra={"error": str(error)[:200]})
        return ""
    if row is None:
        return ""
    _copy_to_folder(address, row[0])
    return row[0]


# -- Copy in the data folder ----------------------------------------------------------------------------------------


def _file(address: str) -> Path:
    return Path(settings.REGISTRY_DATA) / f"identity-{hashlib.sha256(address.encode()).hexdigest()[:12]}"


def _copy_to_folder(address: str, name: str) -> None:
    """Write and rename, so that other processes never read a partial name."""
    path = _file(address)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        if not path.exists() or path.read_text() != name:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_text(name)
            fresh.rename(path)
    except OSError as error:
        log.warning("the database's name cannot be kept", extra={"error": repr(error)})


def _from_folder(address: str) -> str:
    try:
        return _file(address).read_text()
    except OSError:
        raise ImproperlyConfigured(
            "the database cannot be asked for the service's name, and was never asked from this data folder: start when it "
            "can be reached and `manage.py migrate` has run, or set REGISTRY_ID"
        ) from None
