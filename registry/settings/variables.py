"""Readers of environment variables, for the settings. A bad value raises ImproperlyConfigured with the variable's name and what it wants."""

import base64
import os
import re
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def whole(name: str, default: int, *, least: int = 0) -> int:
    """The environment's `name` as an integer of at least `least`."""
    value = os.environ.get(name, str(default))
    try:
        number = int(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name} wants a whole number, got {value!r}") from None
    if number < least:
        raise ImproperlyConfigured(f"{name} wants at least {least}, got {number}")
    return number


def share(name: str, default: float) -> float:
    """The environment's `name` as a number from 0 to 1."""
    value = os.environ.get(name, "") or str(default)
    try:
        number = float(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name} wants a number from 0 to 1, got {value!r}") from None
    if not 0 <= number <= 1:
        raise ImproperlyConfigured(f"{name} wants a number from 0 to 1, got {value}")
    return number


def flag(name: str, default: bool) -> bool:
    """The environment's `name` as yes or no. Raises for any other word."""
    value = os.environ.get(name, "").strip().lower()
    if value not in ("", *YES, *NO):
        raise ImproperlyConfigured(f"{name} wants true or false, got {value!r}")
    return value in YES if value else default


def url(name: str, value: str, *schemes: str) -> str:
    """`value` where it is a URL of these schemes. The error does not repeat it: it may hold a password."""
    if value and (urlsplit(value).scheme not in schemes or "://" not in value):
        raise ImproperlyConfigured(f"{name} wants a URL that begins with {' or '.join(f'{s}://' for s in schemes)}")
    return value


def url_with(name: str, placeholder: str) -> str:
    """The environment's `name`: a URL that contains the placeholder, or nothing."""
    value = url(name, os.environ.get(name, ""), "http", "https")
    if value and placeholder not in value:
        raise ImproperlyConfigured(f"{name} wants a URL with {placeholder} in it")
    return value


def pairs(name: str) -> str:
    """The environment's `name`: `name=value` pairs, separated by commas. The error repeats none: they may hold secrets."""
    value = os.environ.get(name, "")
    if any("=" not in part for part in value.split(",") if part.strip()):
        raise ImproperlyConfigured(f"{name} wants name=value pairs, separated by commas")
    return value


def emails(name: str, value: str) -> list[str]:
    """E-mail addresses, separated by commas."""
    found = [one.strip() for one in value.split(",") if one.strip()]
    if wrong := [one for one in found if not re.fullmatch(r"[^@\s,<>]+@[^@\s,<>]+", one)]:
        raise ImproperlyConfigured(f"{name} wants e-mail addresses separated by commas, not {wrong[0]!r}")
    return found


def signing_secret(name: str, value: str) -> str:
    """A signing secret of Standard Webhooks. The error does not repeat it."""
    try:
        size = len(base64.b64decode(value.removeprefix("whsec_"), validate=True))
    except ValueError:
        size = 0
    if value and (not value.startswith("whsec_") or not 24 <= size <= 64):
        raise ImproperlyConfigured(f"{name} wants whsec_ and 24 to 64 bytes in Base64")
    return value


def encryption_keys(name: str) -> dict[str, bytes]:
    """The environment's `name`, `id:64 hex digits,…`, by id in that order. The error repeats no key."""
    keys: dict[str, bytes] = {}
    for entry in filter(None, (part.strip() for part in os.environ.get(name, "").split(","))):
        key_id, _, digits = entry.partition(":")
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,32}", key_id) or not re.fullmatch(r"[0-9a-fA-F]{64}", digits):
            raise ImproperlyConfigured(f"{name} wants id:64-hex-digits entries, separated by commas")
        if key_id in keys:
            raise ImproperlyConfigured(f"{name} names the id {key_id!r} twice")
        keys[key_id] = bytes.fromhex(digits)
    return keys


def networks(name: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """The environment's `name`: addresses and networks, separated by commas."""
    try:
        return tuple(ip_network(text.strip()) for text in os.environ.get(name, "").split(",") if text.strip())
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} wants addresses or networks such as 10.0.0.0/8: {error}") from None


def names(name: str) -> list[str]:
    """Names of Python modules or packages, separated by commas."""
    found = [one.strip() for one in os.environ.get(name, "").split(",") if one.strip()]
    if wrong := [one for one in found if not all(part.isidentifier() for part in one.split("."))]:
        raise ImproperlyConfigured(f"{name} wants names of Python packages separated by commas, not {wrong[0]!r}")
    if missing := [one for one in found if not _exists(one)]:
        raise ImproperlyConfigured(
            f"{name}: there is no package {missing[0]} on the Python path (PYTHONPATH, or installed)"
        )
    return found


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it
        return False


def mailer(address: str) -> dict[str, Any]:
    """Django's mailer for a mail server's URL."""
    parts = urlsplit(address)
    options = {
        "host": parts.hostname,
        "port": parts.port or 25,
        "username": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "use_tls": parts.scheme == "smtp+tls",
        "use_ssl": parts.scheme in ("smtps", "smtp+ssl"),
        "timeout": 10,  # seconds
    }
    return {"BACKEND": "django.core.mail.backends.smtp.EmailBackend", "OPTIONS": options}


def required_url(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ImproperlyConfigured(
            f"{name} is not set; run through manage.py, which finds or starts the embedded servers"
        )
    return value
