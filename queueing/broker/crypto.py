"""Encryption of payloads at rest, with the named keys of QUEUE_ENCRYPTION_KEYS."""

from django.conf import settings

from registry.errors import Problem
from registry.tenants.encryption import Cipher, Undecipherable

__all__ = ["Cipher", "NoKey", "Undecipherable", "current_key", "decrypt", "encrypt", "has_key"]

SETTING = "QUEUE_ENCRYPTION_KEYS"


class NoKey(Problem):
    """The queue wants its payloads encrypted, but this service has no key for that (QUEUE_ENCRYPTION_KEYS)."""

    status = 500


_cipher = Cipher(settings.QUEUE_ENCRYPTION_KEYS, setting=SETTING)


def has_key() -> bool:
    """Whether this service can encrypt at all."""
    return _cipher.current is not None


def current_key() -> str:
    """The id of the key that encrypts now. Raises NoKey: nothing is ever stored in the clear instead."""
    if _cipher.current is None:
        raise NoKey
    return _cipher.current


def encrypt(payload: bytes, *, key_id: str, place: tuple[int, str, str, str]) -> bytes:
    """Nonce and ciphertext. `place`: tenant, queue, partition, transaction id; decryption elsewhere fails."""
    return _cipher.encrypt(payload, key_id=key_id, place=place)


def decrypt(stored: bytes, *, key_id: str, place: tuple[int, str, str, str]) -> bytes:
    """The payload. Raises Undecipherable."""
    return _cipher.decrypt(stored, key_id=key_id, place=place)
