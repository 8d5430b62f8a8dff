"""Addresses of servers in the environment, as Django and the libraries want them. Errors do not repeat a URL: it may hold a password."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

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


def replica(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """The parameters of one replica: how far it is behind is measured for one server."""
    if "," in found.get("host", ""):
        raise ImproperlyConfigured(f"{name} wants one host: a replica, or a balancer that stays with one")
    if found.get("target_session_attrs", "any") not in ("any", "standby", "read-only", "prefer-standby"):
        raise ImproperlyConfigured(f"{name} wants target_session_attrs to be any, standby, read-only or prefer-standby")
    return found


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


# -- Redis ------------------------------------------------------------------------------------------------------------

REDIS = ("redis", "rediss")
SENTINEL = ("redis+sentinel", "rediss+sentinel")
SENTINEL_PORT = 26379
_SENTINEL = re.compile(
    r"(?P<scheme>rediss?)\+sentinel://(?:(?P<user>[^:@/]*)(?::(?P<password>[^@/]*))?@)?"
    r"(?P<hosts>[^/?@]+)/(?P<name>[^/?]+)(?:/(?P<number>\d*))?(?:\?(?P<query>.*))?"
)
_PLACE = re.compile(r"(?P<host>\[[0-9a-fA-F:.%]+\]|[^:,\[\]]+)(?::(?P<port>\d{1,5}))?")


@dataclass(frozen=True)
class SentinelAddress:
    """Sentinels that know which server is the master of this name; how to talk to it, and to them."""

    sentinels: tuple[tuple[str, int], ...]
    name: str
    server: dict[str, Any]  # parameters of a connection
    sentinel: dict[str, Any]


def sentinels(url: str) -> SentinelAddress | None:
    """The parts of `redis+sentinel://user:password@host:port,host:port/name/number`; None for other URLs. Raises ValueError."""
    if not url.startswith(tuple(f"{scheme}://" for scheme in SENTINEL)):
        return None
    found = _SENTINEL.fullmatch(url)
    places = [_PLACE.fullmatch(place) for place in found["hosts"].split(",")] if found else []
    if found is None or not all(places):
        raise ValueError("not an address of Sentinel")
    query = dict(parse_qsl(found["query"] or "", strict_parsing=bool(found["query"])))
    own = {
        key.removeprefix("sentinel_"): query.pop(key)
        for key in ("sentinel_username", "sentinel_password")
        if key in query
    }
    if query:
        raise ValueError("an unknown parameter")
    secure = {"ssl": True} if found["scheme"] == "rediss" else {}
    given = {"username": found["user"], "password": found["password"]}
    return SentinelAddress(
        tuple((place["host"].strip("[]"), int(place["port"] or SENTINEL_PORT)) for place in places if place),
        unquote(found["name"]),
        {"db": int(found["number"] or 0), **{key: unquote(value) for key, value in given.items() if value}, **secure},
        {**own, **secure},
    )


def redis(name: str, value: str) -> str:
    """`value` where it is the URL of a Redis, or of Sentinels."""
    if value.startswith(tuple(f"{scheme}://" for scheme in REDIS)):
        return value
    try:
        if sentinels(value):
            return value
    except ValueError:
        raise ImproperlyConfigured(
            f"{name} wants redis+sentinel://user:password@host:port,host:port/name/number, with the name that the Sentinels give the"
            " master, and sentinel_username and sentinel_password after a ? where they want them"
        ) from None
    raise ImproperlyConfigured(f"{name} wants a URL that begins with redis://, rediss:// or redis+sentinel://")


def rq_queue(url: str) -> dict[str, Any]:
    """A Redis as django-rq wants it, for its pages."""
    found = sentinels(url)
    if found is None:
        return {"URL": url}
    return {
        "SENTINELS": list(found.sentinels),
        "MASTER_NAME": found.name,
        "CONNECTION_KWARGS": found.server,
        "SENTINEL_KWARGS": {"socket_timeout": 1.0, **found.sentinel},
        "DB": found.server["db"],
    }
