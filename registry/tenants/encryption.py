"""Secrets at rest: AES-256-GCM under keys derived from SECRET_KEY, bound to the place they belong to.

The queue's payloads have keys of their own (queueing.broker.crypto). What is sealed here are few and small things: keys
of processors, secrets of webhooks. SECRET_KEY_FALLBACKS still open them; `seal` always uses SECRET_KEY.
"""

import os
from functools import cache
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from registry.errors import Problem

NONCE = 12  # bytes, random


class Sealed(Problem):
    """A secret cannot be read: SECRET_KEY is not the one it was sealed with (name that one in SECRET_KEY_FALLBACKS)."""

    status = 500


def seal(secret: dict[str, Any], *, place: str) -> bytes:
    """`secret` as bytes that only this service reads, and only as that of `place` (such as "processor 7")."""
    nonce = os.urandom(NONCE)
    return nonce + _cipher(settings.SECRET_KEY).encrypt(nonce, msgspec.json.encode(secret), place.encode())


def unseal(sealed: bytes | memoryview | None, *, place: str) -> dict[str, Any]:
    """The secret; empty for None. Raises Sealed (500)."""
    if sealed is None:
        return {}
    data = bytes(sealed)
    for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        try:
            return msgspec.json.decode(_cipher(key).decrypt(data[:NONCE], data[NONCE:], place.encode()), type=dict)
        except InvalidTag:
            continue
    raise Sealed


@cache
def _cipher(key: str) -> AESGCM:
    return AESGCM(HKDF(SHA256(), length=32, salt=None, info=b"registry.sealing").derive(key.encode()))
