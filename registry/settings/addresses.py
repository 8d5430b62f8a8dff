"""Addresses of servers in the environment, as Django and the libraries want them. Errors do not repeat a URL: it may hold a password."""

from typing import Any

import psycopg
from django.core.exceptions import ImproperlyConfigured
from psycopg.conninfo import conninfo_to_dict

POSTGRES = ("postgres", "postgresql")
OWN = ("user", "password", "host", "hostaddr", "port", "dbname")  # parts of a URL that no other URL inherits


def postgres(name: str, value: str) -> dict[str, Any]:
    """The parameters of a libpq URL: it may name several hosts, IPv6 addresses in brackets, and parameters after a `?`."""
    if not value:
        return {}
    wanted = f"{name} wants postgres://user:password@host:port/name, several hosts separated by commas"
    if not value.startswith(tuple(f"{scheme}://" for scheme in POSTGRES)):
        raise ImproperlyConfigured(wanted)
    try:
        found = conninfo_to_dict(value)
    except (psycopg.ProgrammingError, ValueError):
        raise ImproperlyConfigured(
            f"{wanted}, other characters than letters, digits and -._~ as %XX, and parameters of libpq only"
        ) from None
    _refuse_bad_hosts(name, found)
    return found


def _refuse_bad_hosts(name: str, found: dict[str, Any]) -> None:
    """libpq says at each connection what is wrong with hosts and ports: too late, and beside other errors."""
    hosts, ports = str(found.get("host", "")).split(","), str(found.get("port", "")).split(",")
    if len(ports) not in (1, len(hosts)):
        raise ImproperlyConfigured(f"{name} wants a port for each host, or one for all")
    if any(port and not (port.isdigit() and 0 < int(port) < 65536) for port in ports):
        raise ImproperlyConfigured(f"{name} wants ports from 1 to 65535")


def primary(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """The parameters of an address that leads to a server that takes writes: among several hosts the primary is looked for."""
    wanted = found.get("target_session_attrs", "read-write" if "," in found.get("host", "") else "any")
    if wanted not in ("any", "read-write", "primary"):
        raise ImproperlyConfigured(f"{name} wants target_session_attrs to be read-write, primary or any")
    return {**found, "target_session_attrs": wanted} if "," in found.get("host", "") else found


def django_database(found: dict[str, Any]) -> dict[str, Any]:
    """The same as Django's settings of a database."""
    if not found.get("dbname"):
        raise ImproperlyConfigured("DATABASE_URL wants the name of the database at its end")
    return {
        "NAME": found["dbname"],
        "USER": found.get("user", ""),
        "PASSWORD": found.get("password", ""),
        "HOST": found.get("host", ""),
        "PORT": found.get("port", ""),
        "OPTIONS": {key: value for key, value in found.items() if key not in OWN or key == "hostaddr"},
    }
