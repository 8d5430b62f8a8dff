"""Settling over HTTP: the processor and the outcome for every kind of response."""

from datetime import UTC, datetime, timedelta

import pytest

from payments.processors import http
from tests.conftest import Api, eventually
from tests.settling import hasten


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    hasten(monkeypatch)
    monkeypatch.setattr(http, "SEND_TIMEOUT", 0.2)


async def test_an_accepted_payment_is_booked_at_the_cheaper_processor(api: Api, worker, default, fallback):
    payment = await api.pay("19.90")

    settled = await api.until(payment["correlationId"], "succeeded")

    assert settled["processor"] == "default"
    assert list(default.booked) == [payment["correlationId"]]
    assert not fallback.received


async def test_a_payment_booked_without_a_response_stays_at_its_processor(api: Api, worker, default, fallback):
    default.books_but_never_answers()
    payment = await api.pay()
    await eventually(lambda: default.booked)
    default.recovers()

    settled = await api.until(payment["correlationId"], "succeeded")

    assert settled["processor"] == "default"
    assert not fallback.received


async def test_a_settled_payment_has_its_history(api: Api, worker, default, fallback):
    default.answers(500, times=1)
    payment = await api.pay("0.10", metadata={"order": "7"})

    await api.until(payment["correlationId"], "succeeded")
    told = await api.detail(payment["correlationId"])

    booking = default.booked[payment["correlationId"]]
    assert [(a["number"], a["outcome"], a["code"]) for a in told["attempts"]] == [
        (1, "not_booked", "http_500"),
        (2, "booked", "http_200"),
    ]
    assert told["attempts"][1]["requestedAt"] == booking.requested_at.isoformat(timespec="milliseconds").replace(
        "+00:00", "Z"
    )
    assert [event["status"] for event in told["timeline"]] == [
        "queued",
        "processing",
        "queued",
        "processing",
        "succeeded",
    ]
    assert (booking.amount, told["fee"], told["processor"]) == (10, "0.01", "default")


async def test_a_scheduled_payment_is_not_sent_before_its_time(api: Api, worker, default):
    await api.pay()
    await eventually(lambda: len(default.booked) == 1)
    at = datetime.now(UTC) + timedelta(seconds=0.3)
    later = await api.pay(scheduledFor=at.isoformat())

    settled = await api.until(later["correlationId"], "succeeded")

    assert datetime.fromisoformat(settled["updatedAt"]) >= at.replace(microsecond=at.microsecond // 1000 * 1000)
    assert default.booked[later["correlationId"]].requested_at >= at.replace(microsecond=at.microsecond // 1000 * 1000)
