"""Payloads at rest: AES-256-GCM (NIST SP 800-38D), bound to the place they belong to, with named keys that rotate."""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

from registry.errors import Problem

NONCE = 12  # bytes, random


class NoKey(Problem):
    """The queue wants its payloads encrypted, but this service has no key for that (QUEUE_ENCRYPTION_KEYS)."""

    status = 500


class Undecipherable(Problem):
    """A payload cannot be decrypted: its key is not among QUEUE_ENCRYPTION_KEYS, or it was changed."""

    status = 500


_ciphers: dict[str, AESGCM] = {name: AESGCM(key) for name, key in settings.QUEUE_ENCRYPTION_KEYS.items()}


def has_key() -> bool:
    """Whether this service can encrypt at all."""
    return bool(_ciphers)


def current_key() -> str:
    """The id of the key that encrypts now. Raises NoKey: nothing is ever stored in the clear instead."""
    if not _ciphers:
        raise NoKey
    return next(iter(_ciphers))


def encrypt(payload: bytes, *, key_id: str, place: tuple[int, str, str, str]) -> bytes:
    """Nonce and ciphertext. `place`: tenant, queue, partition, transaction id; decryption elsewhere fails."""
    nonce = os.urandom(NONCE)
    return nonce + _ciphers[key_id].encrypt(nonce, payload, _bound(place))


def decrypt(stored: bytes, *, key_id: str, place: tuple[int, str, str, str]) -> bytes:
    """The payload. Raises Undecipherable."""
    cipher = _ciphers.get(key_id)
    if cipher is None:
        raise Undecipherable(f"the key {key_id!r} is not among QUEUE_ENCRYPTION_KEYS")
    try:
        return cipher.decrypt(stored[:NONCE], stored[NONCE:], _bound(place))
    except InvalidTag:
        raise Undecipherable("a payload was changed at rest, or belongs elsewhere") from None


def _bound(place: tuple[int, str, str, str]) -> bytes:
    # Lengths first: ("a", "bc") and ("ab", "c") are not the same place.
    parts = [str(part).encode() for part in place]
    return b"".join(len(part).to_bytes(4) + part for part in parts)
