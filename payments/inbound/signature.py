"""Stripe's signature of a webhook: `Stripe-Signature: t=SECONDS,v1=HEX[,v1=HEX…]`, HMAC-SHA256 over `t.body`.

Checked by hand: Stripe's own library lets timestamps of the future pass.
"""

import hmac
import time
from collections.abc import Iterable
from typing import NamedTuple

from payments.errors import PaymentError

HEADER = b"stripe-signature"
TOLERANCE = 300  # seconds that clocks may differ, or a delivery be under way: an older one may be somebody's replay
HEADER_LENGTH = 4096  # bytes at most
SIGNATURES = 16  # at most: while Stripe's secret is rotated there are two
NOBODYS = b"a secret that nobody has"  # what is compared for accounts that are not there, so that it takes as long


class NotSigned(PaymentError):
    """The event is not signed as events are."""

    status = 400


class WronglySigned(PaymentError):
    """No secret of such an account made this signature: the address, the secret or the body is another one."""

    # The same for accounts that are not there: who cannot sign learns nothing of who is here.
    status = 400


class Signature(NamedTuple):
    """What a delivery says of itself. Nothing is proven yet."""

    stamp: bytes  # the time as it was written: so it was signed
    digests: tuple[bytes, ...]


def read_signature(fields: Iterable[bytes], *, now: float | None = None) -> Signature:
    """The signature in these header fields. Raises NotSigned (400) for none, several, one that is no signature, and one
    that is more than TOLERANCE old or ahead."""
    signature = _parse(list(fields))
    age = (time.time() if now is None else now) - int(signature.stamp)
    if age > TOLERANCE:
        raise NotSigned(f"it was signed {age:.0f} s ago, and may be {TOLERANCE} s old")
    if age < -TOLERANCE:
        raise NotSigned(f"it was signed {-age:.0f} s in the future")
    return signature


def _parse(fields: list[bytes]) -> Signature:
    if not fields:
        raise NotSigned("there is no Stripe-Signature header")
    if len(fields) > 1 or len(fields[0]) > HEADER_LENGTH:
        raise NotSigned("there is more than one signature header" if len(fields) > 1 else "the signature is too long")
    pairs = [item.strip().partition(b"=") for item in fields[0].split(b",")]
    stamps = [value for name, _, value in pairs if name == b"t"]
    digests = tuple(value for name, _, value in pairs if name == b"v1")
    if len(stamps) != 1 or not stamps[0].isdigit() or len(stamps[0]) > 12 or not digests:
        raise NotSigned("a signature wants one time and one or more v1: t=SECONDS,v1=HEX")
    if len(digests) > SIGNATURES:
        raise NotSigned(f"there are more than {SIGNATURES} signatures")
    return Signature(stamps[0], digests)


def verify(signature: Signature, body: bytes, secrets: Iterable[bytes]) -> None:
    """Raises WronglySigned (400) unless one of `secrets` made one of the digests. All are tried, however soon one fits."""
    signed = signature.stamp + b"." + body
    fits = False
    for secret in secrets:
        made = hmac.digest(secret, signed, "sha256").hex().encode()
        for digest in signature.digests:
            fits |= hmac.compare_digest(made, digest)
    if not fits:
        raise WronglySigned


def sign(body: bytes, *secrets: bytes, at: float | None = None) -> str:
    """The header that Stripe would send, for whoever plays it."""
    stamp = b"%d" % (time.time() if at is None else at)
    made = (hmac.digest(secret, stamp + b"." + body, "sha256").hex() for secret in secrets)
    return f"t={stamp.decode()}," + ",".join(f"v1={digest}" for digest in made)
