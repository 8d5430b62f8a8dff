"""Stripe's signature of a webhook: `Stripe-Signature: t=SECONDS,v1=HEX[,v1=HEX…]`, HMAC-SHA256 over `t.body`.

Checked by hand: Stripe's own library lets timestamps of the future pass.
"""

import hmac
import time
from collections.abc import Iterable
from typing import NamedTuple

from payments.errors import PaymentError
from registry.data import clock

HEADER = b"stripe-signature"
TOLERANCE = 300  # seconds that clocks may differ or a delivery may take; an older request may be a replay
HEADER_LENGTH = 4096  # bytes at most
SIGNATURES = 16  # at most: while Stripe's secret is rotated there are two
UNKNOWN_SECRET = b"a secret that nobody has"  # compared for unknown accounts, so that the answer takes as long


class NotSigned(PaymentError):
    """The event has no valid signature header."""

    status = 400


class WronglySigned(PaymentError):
    """No secret of this account made the signature: the address, the secret or the body is wrong."""

    # The same for unknown accounts, so that nobody can find out which accounts exist.
    status = 400


class Signature(NamedTuple):
    """The parsed signature header, not verified."""

    stamp: bytes  # the time as text, as it was signed
    digests: tuple[bytes, ...]


def read_signature(fields: Iterable[bytes], *, now: float | None = None) -> Signature:
    """Parse the signature header. Raises NotSigned (400): none, several, malformed, or more than TOLERANCE old or ahead."""
    signature = _parse(list(fields))
    age = (clock.timestamp() if now is None else now) - int(signature.stamp)
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
    """Raises WronglySigned (400) unless one of `secrets` made one of the digests. Always compares all (constant time)."""
    signed = signature.stamp + b"." + body
    fits = False
    for secret in secrets:
        made = hmac.digest(secret, signed, "sha256").hex().encode()
        for digest in signature.digests:
            fits |= hmac.compare_digest(made, digest)
    if not fits:
        raise WronglySigned


def sign(body: bytes, *secrets: bytes, at: float | None = None) -> str:
    """The header that Stripe would send. For the sandbox and tests."""
    stamp = b"%d" % (time.time() if at is None else at)
    made = (hmac.digest(secret, stamp + b"." + body, "sha256").hex() for secret in secrets)
    return f"t={stamp.decode()}," + ",".join(f"v1={digest}" for digest in made)
