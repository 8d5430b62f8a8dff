"""The client's verification of webhooks, with messages that the service itself signs, and with forged ones."""

import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from payments.books.events import status_body
from payments.books.webhooks import TYPES
from queueing.jobs import webhooks as jobs
from queueing.outbound import signing
from registry.edge.api import ENCODER
from registry.http import signatures
from registry_client import (
    DisputeEvent,
    JobEvent,
    OtherEvent,
    PaymentEvent,
    RefundEvent,
    UnexpectedResponse,
    Webhook,
    WebhookRefused,
)
from registry_client.testing import signed

AT = datetime(2026, 12, 1, 12, tzinfo=UTC)
ID = UUID("5f4c5b1e-8f7b-4a57-9d2f-0c9a3a1f2b11")
PART = {"id": "re_1", "amount": "5.00", "currency": "BRL", "reason": "broken"}


def data(**more: Any) -> dict[str, Any]:
    """The `data` of a message."""
    body = status_body(
        correlation_id=ID, status="succeeded", amount=1990, currency="BRL", processor="default", attempts=1,
        updated_at=AT, sequence=3,
    )  # fmt: skip
    return body | more


def message(type: str, *secrets: str, at: datetime = AT, **more: Any) -> tuple[bytes, dict[str, str]]:
    """Body and headers as the service sends them."""
    body = ENCODER.encode({"type": type, "timestamp": "2026-12-01T12:00:00.000Z", "data": data(**more)})
    return body, signatures.headers(secrets, "msg_1", at, body.decode())


def webhook(*secrets: str, now: datetime = AT) -> Webhook:
    return Webhook(*secrets, clock=now.timestamp)


def test_an_event_of_a_payment_is_typed():
    secret = signing.new_secret()
    body, headers = message("payment.succeeded", secret)

    event = webhook(secret).verify(body, headers)

    assert isinstance(event, PaymentEvent)
    assert (event.id, event.type, event.timestamp) == ("msg_1", "payment.succeeded", AT)
    assert (event.data.correlation_id, event.data.amount, event.data.sequence) == (ID, Decimal("19.90"), 3)


@pytest.mark.parametrize("type", TYPES)
def test_every_type_that_the_service_sends_has_a_class(type: str):
    secret = signing.new_secret()
    noun = type.partition(".")[0]

    event = webhook(secret).verify(*message(type, secret, **({} if noun == "payment" else {noun: PART})))

    classes = {"payment": PaymentEvent, "refund": RefundEvent, "dispute": DisputeEvent}
    assert type_of(event) is classes[noun]
    if isinstance(event, RefundEvent):
        assert (event.data.refund.amount, event.data.refund.id) == (Decimal("5.00"), "re_1")
    if isinstance(event, DisputeEvent):
        assert event.data.dispute.reason == "broken"


@pytest.mark.parametrize("type", jobs.TYPES)
def test_an_event_of_a_job_has_the_job(type: str):
    secret = signing.new_secret()
    body = ENCODER.encode(
        {"type": type, "timestamp": "2026-12-01T12:00:00.000Z", "data": jobs.example(type, ID, 3, AT)}
    )

    event = webhook(secret).verify(body, signatures.headers([secret], "msg_1", AT, body.decode()))

    assert isinstance(event, JobEvent)
    assert (event.data.id, event.data.status, event.data.sequence) == (ID, type.removeprefix("job."), 3)


def type_of(event: object) -> type:
    return type(event)


def test_an_unknown_type_is_an_event_with_its_data():
    secret = signing.new_secret()

    event = webhook(secret).verify(*message("endpoint.test", secret))

    assert isinstance(event, OtherEvent)
    assert event.data["correlationId"] == str(ID)


@pytest.mark.parametrize("type", ["payment.held", "job.paused", "refund.updated", "dispute.won"])
def test_a_new_type_of_a_known_object_is_an_event_with_its_data(type: str):
    secret, status = signing.new_secret(), type.partition(".")[2]

    event = webhook(secret).verify(*message(type, secret, status=status))

    assert isinstance(event, OtherEvent)
    assert (event.type, event.data["status"]) == (type, status)


def test_the_request_of_a_job_is_checked_whatever_its_body_is():
    secret = signing.new_secret()

    for body in ('{"order":1}', "[1]", ""):
        headers = signatures.headers([secret], str(ID), AT, body)
        assert webhook(secret).check(body.encode(), headers) == str(ID)
        with pytest.raises(WebhookRefused, match="no signature"):
            webhook(secret).check(body.encode() + b" ", headers)
        with pytest.raises(WebhookRefused, match="old"):
            webhook(secret, now=AT + timedelta(seconds=301)).check(body, headers)
        with pytest.raises(WebhookRefused, match="missing"):
            webhook(secret).check(body, {})


def test_each_of_several_secrets_verifies_during_a_rotation():
    old, new, foreign = (signing.new_secret() for _ in range(3))

    for signs, knows in (((new, old), (old,)), ((old,), (new, old))):
        assert webhook(*knows).verify(*message("payment.failed", *signs)).type == "payment.failed"
    with pytest.raises(WebhookRefused):
        webhook(foreign).verify(*message("payment.failed", old, new))


@pytest.mark.parametrize("seconds", [-301, 301, 10**9])
def test_a_message_that_is_old_or_ahead_is_refused(seconds: int):
    secret = signing.new_secret()
    now = datetime.fromtimestamp(AT.timestamp() + seconds, UTC)

    with pytest.raises(WebhookRefused, match="old"):
        webhook(secret, now=now).verify(*message("payment.failed", secret))


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("webhook-id", "msg_2"),
        ("webhook-id", None),
        ("webhook-timestamp", "1796126401"),
        ("webhook-timestamp", "9" * 400),
        ("webhook-timestamp", "now"),
        ("webhook-timestamp", None),
        ("webhook-signature", ""),
        ("webhook-signature", "v1,AAAA"),
        ("webhook-signature", "\udcff é"),
        ("webhook-signature", None),
    ],
)
def test_a_message_with_a_wrong_or_missing_header_is_refused(header: str, value: str | None):
    secret = signing.new_secret()
    body, headers = message("payment.failed", secret)
    changed = {name: text for name, text in (headers | {header: value}).items() if text is not None}

    with pytest.raises(WebhookRefused):
        webhook(secret).verify(body, changed)


def test_a_changed_body_is_refused():
    secret = signing.new_secret()
    body, headers = message("payment.failed", secret)

    with pytest.raises(WebhookRefused):
        webhook(secret).verify(body.replace(b"19.90", b"99.90"), headers)


def test_headers_may_be_written_in_any_case_and_the_body_may_be_text():
    secret = signing.new_secret()
    body, headers = message("payment.failed", secret)

    assert webhook(secret).verify(body.decode(), {name.title(): text for name, text in headers.items()})


def test_a_genuine_message_that_is_not_documented_is_an_error_and_not_passed_over():
    secret = signing.new_secret()

    with pytest.raises(UnexpectedResponse):
        webhook(secret).verify(*message("payment.failed", secret, status="melted"))


def test_a_secret_that_is_none_is_noticed_at_once():
    for secrets in ((), ("whsec_not base64!",)):
        with pytest.raises(ValueError, match="secret"):
            Webhook(*secrets)


def test_applications_sign_messages_for_their_own_tests():
    secret = signing.new_secret()
    body, headers = signed(secret, "payment.succeeded", data())
    old, old_headers = signed(secret, "payment.succeeded", data(), sent_at=time.time() - 3600)

    assert isinstance(Webhook(secret).verify(body, headers), PaymentEvent)
    with pytest.raises(WebhookRefused):
        Webhook(secret).verify(old, old_headers)
