"""Signed public links of payments: a token shows one payment to anybody who has the link."""

import base64
import hashlib
import hmac
from functools import cache
from uuid import UUID

from django.conf import settings

TOKEN_LENGTH = 40  # characters at most


@cache
def _link_key(secret_key: str) -> bytes:
    return hashlib.sha256(b"payment link" + secret_key.encode()).digest()


def _sign(secret_key: str, tenant_id: int, correlation_id: UUID) -> str:
    subject = b"%d:%b" % (tenant_id, correlation_id.bytes)
    mac = hashlib.blake2b(subject, key=_link_key(secret_key), digest_size=15).digest()  # keyed: a MAC (RFC 7693)
    return f"{tenant_id:x}.{base64.urlsafe_b64encode(mac).decode()}"


def token_of(tenant_id: int, correlation_id: UUID) -> str:
    """The token in the public link of a payment. It gives access to this payment only."""
    return _sign(settings.SECRET_KEY, tenant_id, correlation_id)


def tenant_of(correlation_id: UUID, token: str) -> int | None:
    """Verify the token of a payment's link: the tenant's id, or None when the token is invalid or of another payment.

    Tokens signed with one of SECRET_KEY_FALLBACKS are valid too.
    """
    if len(token) > TOKEN_LENGTH:
        return None
    try:
        tenant_id = int(token.partition(".")[0], 16)
    except ValueError:
        return None
    for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        if hmac.compare_digest(_sign(key, tenant_id, correlation_id).encode(), token.encode()):
            return tenant_id
    return None
