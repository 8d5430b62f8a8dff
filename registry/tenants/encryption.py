"""Encryption at rest: one AES-GCM cipher with named keys, and the secrets that it seals under SECRET_KEY.

Secrets are few and small: keys of processors, signing keys of webhooks. The payloads of queues have keys of their own
(queueing.broker.crypto).
"""

import hashlib
import os
from collections.abc import Mapping
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
KEY_ID = 16  # bytes before a sealed secret: which key sealed it


class Undecipherable(Problem):
    """A ciphertext cannot be decrypted: its key is not configured, or it was changed."""

    status = 500


class Sealed(Problem):
    """A secret cannot be read: SECRET_KEY is not the one it was sealed with (name that one in SECRET_KEY_FALLBACKS)."""

    status = 500


class Cipher:
    """AES-256-GCM (NIST SP 800-38D) with keys by name: the first encrypts, every key decrypts what it encrypted.

    A ciphertext is bound to its `place` (associated data) and does not decrypt elsewhere.
    """

    def __init__(self, keys: Mapping[str, bytes], *, setting: str) -> None:
        self._keys = {name: AESGCM(key) for name, key in keys.items()}
        self._setting = setting  # where the keys come from, for error messages

    @property
    def current(self) -> str | None:
        """The name of the key that encrypts now."""
        return next(iter(self._keys), None)

    def encrypt(self, plain: bytes, *, key_id: str, place: tuple[int | str, ...]) -> bytes:
        """Nonce and ciphertext."""
        nonce = os.urandom(NONCE)
        return nonce + self._keys[key_id].encrypt(nonce, plain, _bound(place))

    def decrypt(self, stored: bytes, *, key_id: str, place: tuple[int | str, ...]) -> bytes:
        """The plain text. Raises Undecipherable (500)."""
        key = self._keys.get(key_id)
        if key is None:
            raise Undecipherable(f"the key {key_id!r} is not among {self._setting}")
        try:
            return key.decrypt(stored[:NONCE], stored[NONCE:], _bound(place))
        except InvalidTag:
            raise Undecipherable("a payload was changed at rest, or belongs elsewhere") from None


def _bound(place: tuple[int | str, ...]) -> bytes:
    # Lengths first: ("a", "bc") and ("ab", "c") are not the same place.
    parts = [str(part).encode() for part in place]
    return b"".join(len(part).to_bytes(4) + part for part in parts)


# -- Secrets under SECRET_KEY ------------------------------------------------------------------------------------


def seal(secret: dict[str, Any], *, place: str) -> bytes:
    """`secret` encrypted with SECRET_KEY, for `place` only (such as "processor 7")."""
    cipher = _secrets()
    assert cipher.current  # there is always a SECRET_KEY
    sealed = cipher.encrypt(msgspec.json.encode(secret), key_id=cipher.current, place=(place,))
    return cipher.current.encode() + sealed


def unseal(sealed: bytes | memoryview | None, *, place: str) -> dict[str, Any]:
    """The secret, by SECRET_KEY or one of SECRET_KEY_FALLBACKS; empty for None. Raises Sealed (500)."""
    if sealed is None:
        return {}
    data = bytes(sealed)
    key_id = data[:KEY_ID].decode(errors="replace")
    try:
        return msgspec.json.decode(_secrets().decrypt(data[KEY_ID:], key_id=key_id, place=(place,)), type=dict)
    except Undecipherable:
        raise Sealed from None


def _secrets() -> Cipher:
    return _cipher((settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS))


@cache
def _cipher(secret_keys: tuple[str, ...]) -> Cipher:
    """Keys derived from SECRET_KEY and its fallbacks, named by their digests."""
    derived = [
        HKDF(SHA256(), length=32, salt=None, info=b"registry.sealing").derive(key.encode()) for key in secret_keys
    ]
    keys = {hashlib.sha256(key).hexdigest()[:KEY_ID]: key for key in derived}
    return Cipher(keys, setting="SECRET_KEY and SECRET_KEY_FALLBACKS")
