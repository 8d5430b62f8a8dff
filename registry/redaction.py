"""Redaction of secrets in logs: by name, by format, and in URLs (path and query)."""

import re
from datetime import date
from typing import Any

HIDDEN = "[redacted]"
SECRET_NAMES = re.compile(r"authorization|cookie|password|secret|token|api_?key|card", re.IGNORECASE)
# First path segments that a secret follows, because the URL itself authorizes: all that follows is hidden. A test compares them with the routes.
SECRET_PATHS = ("invitation", "password")
# Query parameters whose values stay readable; any other may be a secret.
PLAIN_PARAMETERS = frozenset(
    "after autoAck batch before consumerGroup currency from group interval limit offset page partition partitions"
    " processor queue status subscriptionMode task tenant timeout to wait".split()
)

_NAME = r"(?:password|passwd|secret|token|session_?id|session_?key|api_?key)"
_IS, _SLASH, _AND = (
    r"(?:[=:]|%(?:25)*3D)",
    r"(?:/|%(?:25)*2F)",
    r"%(?:25)*26",
)  # also percent-encoded inside a parameter
# Each alternative has one group: the part before the secret, which is kept.
_SECRETS = re.compile(
    "|".join(
        (
            r"((?:rk_[a-z0-9]+|(?<![a-z])sk_(?:live|test))_)[A-Za-z0-9_-]+",
            r"(whsec_)[A-Za-z0-9+/=_-]+",
            r"((?:pi|seti)_[A-Za-z0-9]+_secret_)[A-Za-z0-9]+",
            r"((?:Bearer|Basic)\s+)[^\s\"'\\,;]+",
            r"(://[^:/@\s]*:)[^\s\"]+(?=@)",
            rf"({_NAME}[\"']?\s*{_IS}\s*\")(?:[^\"\\]|\\.)*",
            rf"({_NAME}\\+[\"']\s*{_IS}\s*\\+[\"'])[^\"'\\]*",  # JSON within JSON
            rf"({_NAME}[\"']?\s*{_IS}\s*')(?:[^'\\]|\\.)*",
            rf"({_NAME}[\"']?\s*{_IS}\s*)(?!\[redacted)(?:(?!{_AND})[^\s\"'&,;}}\]\\])+",
            rf"({_SLASH}(?:{'|'.join(SECRET_PATHS)}){_SLASH})(?:(?!{_AND})[^\s\"'?&\\])+",
            r"()(?<![\w-])[\w-]{4,}(?::|%3A)[0-9A-Za-z]{5,7}(?::|%3A)[\w-]{43}(?![\w-])",  # signed by django.core.signing
            r"()(?<![\w.-])[0-9a-f]{1,16}\.[\w-]{20}(?![\w.-])",  # a payment link's token: registry.tenants.links
            r"()(?<![\w-])[0-9a-z]{6,7}-[0-9a-f]{32}(?![\w-])",  # of a new password: django.contrib.auth.tokens
            r"(Failing row contains \()(?!\[redacted)[^\n]*",  # PostgreSQL repeats the whole row
        )
    ),
    re.IGNORECASE,
)
_PARAMETER = re.compile(r"([?&])([\w.\[\]%-]{1,64})=([^\s\"'&#\\]+)")


def redact(value: Any) -> Any:
    """`value` without keys, passwords and tokens at any depth. An object of another type becomes its repr."""
    if isinstance(value, str):
        return redact_text(value)
    if value is None or isinstance(value, (bool, int, float, date)):
        return value
    if isinstance(value, dict):
        return {name: HIDDEN if SECRET_NAMES.search(str(name)) else redact(one) for name, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [redact(one) for one in value]
    return redact_text(repr(value))


def redact_text(text: str) -> str:
    return _PARAMETER.sub(_parameter, _SECRETS.sub(_secret, text))


def _secret(match: re.Match[str]) -> str:
    return match[match.lastindex or 0] + HIDDEN


def _parameter(match: re.Match[str]) -> str:
    return match[0] if match[2] in PLAIN_PARAMETERS else f"{match[1]}{match[2]}={HIDDEN}"
