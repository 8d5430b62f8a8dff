"""Webhooks that Registry sends: verification of the signature (Standard Webhooks), and the events as typed objects."""

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from registry_client._responses import decode_bytes
from registry_client.errors import WebhookRefused
from registry_client.models.common import Time
from registry_client.models.jobs import Job, JobStatus
from registry_client.models.payments import Payment, PaymentStatus

TOLERANCE = 300.0  # seconds that a message may be old or ahead
LONGEST_TIME = 12  # digits
PREFIX = "whsec_"
REFUND_EVENTS, DISPUTE_EVENTS = ("created", "returned", "failed"), ("opened", "updated", "closed")


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """The refund or dispute that an event is about."""

    id: str
    amount: Decimal
    currency: str
    reason: str = ""


class RefundedPayment(Payment, frozen=True, kw_only=True, rename="camel"):
    """A payment with the refund that changed."""

    refund: Part


class DisputedPayment(Payment, frozen=True, kw_only=True, rename="camel"):
    """A payment with the dispute that changed."""

    dispute: Part


class PaymentEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A payment changed its status. Of two events of a payment, the one with the higher `data.sequence` is newer."""

    id: str  # the same at every attempt: handle it once
    type: str
    timestamp: Time
    data: Payment


class RefundEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A refund was created, returned, or failed."""

    id: str
    type: str
    timestamp: Time
    data: RefundedPayment


class DisputeEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A dispute was opened, updated, or closed."""

    id: str
    type: str
    timestamp: Time
    data: DisputedPayment


class JobEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A job changed its status."""

    id: str
    type: str
    timestamp: Time
    data: Job


class OtherEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a type that this version does not know: respond 2xx."""

    id: str
    type: str
    timestamp: Time
    data: Any = None


type Event = PaymentEvent | RefundEvent | DisputeEvent | JobEvent | OtherEvent


class _Message(msgspec.Struct, frozen=True):
    """The body of every message."""

    type: str
    timestamp: Time
    data: msgspec.Raw = msgspec.Raw(b"null")


class Webhook:
    """Verifies messages by the secret of an endpoint, or by several during a rotation."""

    def __init__(self, *secrets: str, tolerance: float = TOLERANCE, clock: Callable[[], float] = time.time) -> None:
        if not secrets:
            raise ValueError("a secret is needed")
        self._keys = [_key(secret) for secret in secrets]
        self._tolerance, self._clock = tolerance, clock

    def verify(self, body: bytes | str, headers: Mapping[str, str]) -> Event:
        """The event of a message: pass the raw body. Raises WebhookRefused for one that is not genuine, or too old."""
        return _event(self.check(body, headers), _raw(body))

    def check(self, body: bytes | str, headers: Mapping[str, str]) -> str:
        """The `webhook-id` of a message, by signature and time only: its body may be anything, as that of a job of kind `http`.

        Pass the raw body. Raises WebhookRefused as `verify` does.
        """
        named = {name.lower(): value for name, value in headers.items()}
        try:
            message_id, sent_at, given = (named[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
        except KeyError as missing:
            raise WebhookRefused(f"the header {missing} is missing") from None
        self._check_time(sent_at)
        if not _is_signed(self._keys, f"{message_id}.{sent_at}.".encode() + _raw(body), given):
            raise WebhookRefused("no signature matches")
        return message_id

    def _check_time(self, sent_at: str) -> None:
        whole = sent_at.isascii() and sent_at.isdigit() and len(sent_at) <= LONGEST_TIME
        if not whole or abs(self._clock() - int(sent_at)) > self._tolerance:
            raise WebhookRefused("the time is missing, too old, or ahead")


def _raw(body: bytes | str) -> bytes:
    return body.encode() if isinstance(body, str) else body


def sign(secret: str, message_id: str, sent_at: int, body: bytes) -> str:
    """The signature of a message, as in `webhook-signature`."""
    return _signature(_key(secret), f"{message_id}.{sent_at}.".encode() + body)


def _key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("a secret is base64, with or without whsec_ in front") from None


def _signature(key: bytes, signed: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def _is_signed(keys: Iterable[bytes], signed: bytes, given: str) -> bool:
    wanted = [_signature(key, signed).encode() for key in keys]
    return any(hmac.compare_digest(one, other.encode(errors="replace")) for one in wanted for other in given.split())


def _event(message_id: str, body: bytes) -> Event:
    """The typed event. Raises UnexpectedResponse for a genuine message that is not what the service documents."""
    message = decode_bytes(body, _Message)
    known: Any = {"id": message_id, "type": message.type, "timestamp": message.timestamp}
    data = bytes(message.data)
    noun, _, what = message.type.partition(".")
    match noun:
        case "payment" if what in PaymentStatus:
            return PaymentEvent(data=decode_bytes(data, Payment), **known)
        case "refund" if what in REFUND_EVENTS:
            return RefundEvent(data=decode_bytes(data, RefundedPayment), **known)
        case "dispute" if what in DISPUTE_EVENTS:
            return DisputeEvent(data=decode_bytes(data, DisputedPayment), **known)
        case "job" if what in JobStatus:
            return JobEvent(data=decode_bytes(data, Job), **known)
        case _:
            return OtherEvent(data=decode_bytes(data, object), **known)
