"""Notes every secret that is made while tests run, and finds those that the service logs."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import msgspec
from django.contrib.auth.hashers import Argon2PasswordHasher
from django.contrib.sessions.backends.base import SessionBase
from django.core import signing
from structlog.stdlib import ProcessorFormatter

from registry.tenants import access, encryption, links
from tests.secret_forms import around

LEAST = 8  # characters; a shorter one is a word that stands everywhere
SEARCHED_AT = 4_000_000  # characters of log after which it is searched before a test ends
_made: set[str] = set()
_found: list[str] = []


class _Lines(logging.Handler):
    """What the service's own formatter makes of each record. It writes nowhere."""

    def __init__(self, formatter: logging.Formatter | None) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.lines: list[str] = []
        self.size = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
        self.size += len(self.lines[-1])
        if self.size > SEARCHED_AT:
            self.search()

    def search(self) -> None:
        text, self.lines, self.size = "\n".join(self.lines), [], 0
        _found.extend(around(_made, text))


_handler: _Lines | None = None


def note(*secrets: Any) -> None:
    _made.update(secret for secret in secrets if isinstance(secret, str) and len(secret) >= LEAST)


def logged() -> list[str]:
    """The lines, since the last call, around secrets that were made since then."""
    assert _handler is not None
    _handler.search()
    found = _found[:]
    _found.clear()
    _made.clear()
    return found


@contextmanager
def watching() -> Iterator[None]:
    """For the whole run: note what the makers of secrets return, and read every line of the log."""
    global _handler
    root = logging.getLogger()
    ours = next(h for h in root.handlers if isinstance(h.formatter, ProcessorFormatter))
    _handler = _Lines(ours.formatter)
    root.addHandler(_handler)
    with (
        _noting(access, "_new_key", lambda made, *_: note(made[1], made[1].split("_", 2)[2])),
        _noting(links, "_sign", lambda made, *_: note(made)),
        _noting(signing, "dumps", lambda made, *_: note(made)),
        _noting_sealed(),
        _noting(SessionBase, "_get_new_session_key", lambda made, *_: note(made)),
        _noting(Argon2PasswordHasher, "encode", lambda made, _self, password, *_: note(password)),
    ):
        yield
    root.removeHandler(_handler)


def _noting(owner: Any, name: str, noted: Callable[..., None]) -> Any:
    """`owner.name` as it is, but what it returns is noted."""
    real = getattr(owner, name)

    def recorder(*args: Any, **options: Any) -> Any:
        made = real(*args, **options)
        noted(made, *args)
        return made

    return patch.object(owner, name, recorder)


def _noting_sealed() -> Any:
    """Keys of processors and secrets of webhooks pass through the cipher that seals them."""
    real = encryption._cipher

    class Noting:
        def __init__(self, secret_keys: tuple[str, ...]) -> None:
            self.cipher = real(secret_keys)
            self.current = self.cipher.current

        def encrypt(self, plain: bytes, **options: Any) -> bytes:
            _note_deep(msgspec.json.decode(plain))
            return self.cipher.encrypt(plain, **options)

        def decrypt(self, stored: bytes, **options: Any) -> bytes:
            found = self.cipher.decrypt(stored, **options)
            _note_deep(msgspec.json.decode(found))
            return found

    return patch.object(encryption, "_cipher", Noting)


def _note_deep(value: Any) -> None:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            _note_deep(one)
    else:
        note(value)
