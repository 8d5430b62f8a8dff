"""Cancellation of queued payments, scheduled payments, and priorities."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from registry.data import database
from tests.conftest import Api, at_work, eventually
from tests.settling import settle_due


async def cancel(api: Api, name: str) -> tuple[int, dict]:
    async with api.post(f"/payments/{name}/cancel") as response:
        return response.status, await response.json(content_type=None)


async def test_a_queued_payment_is_canceled_and_never_sent(api: Api, default):
    payment = await api.pay()

    status, said = await cancel(api, payment["correlationId"])

    assert (status, said["status"], said["sequence"]) == (200, "canceled", 2)
    other = await api.pay()
    await settle_due()
    assert list(default.booked) == [other["correlationId"]]
    assert (await api.status(payment["correlationId"]))["status"] == "canceled"


async def test_canceling_is_an_event_of_the_timeline(api: Api):
    payment = await api.pay()
    await cancel(api, payment["correlationId"])

    said = await api.detail(payment["correlationId"])

    assert [(event["sequence"], event["status"]) for event in said["timeline"]] == [(1, "queued"), (2, "canceled")]


async def test_canceling_twice_answers_the_same(api: Api):
    payment = await api.pay()
    first = await cancel(api, payment["correlationId"])

    again = await cancel(api, payment["correlationId"])

    assert again == first


async def test_a_canceled_payment_sent_again_stays_canceled(api: Api, default):
    payment = await api.pay()
    await cancel(api, payment["correlationId"])

    async with api.post("/payments", json={"correlationId": payment["correlationId"], "amount": "19.90"}) as response:
        assert response.headers["Idempotent-Replayed"] == "true"

    assert (await api.status(payment["correlationId"]))["status"] == "canceled"


async def test_a_payment_at_a_processor_cannot_be_canceled(api: Api, worker, default):
    default.never_answers()
    payment = await api.pay()
    await eventually(lambda: default.received)

    status, said = await cancel(api, payment["correlationId"])

    assert (status, said["title"]) == (409, "Only a payment that is queued or requires action can be canceled")


async def test_a_settled_payment_cannot_be_canceled(api: Api, default):
    payment = await api.pay()
    await settle_due()

    status, said = await cancel(api, payment["correlationId"])

    assert (status, said["detail"]) == (
        409,
        "it is succeeded; only a payment that is queued or requires action can be canceled",
    )


async def test_either_a_concurrent_cancel_or_claim_wins(api: Api, quick, default):
    names = [(await api.pay())["correlationId"] for _ in range(30)]
    backwards = names[::-1]  # the drain begins at the other end

    async with at_work(capacity=10):
        answers = dict(zip(backwards, await asyncio.gather(*(cancel(api, name) for name in backwards)), strict=True))
        ended = {name: (await api.until(name, "succeeded", "canceled"))["status"] for name in names}

    assert {name for name, end in ended.items() if end == "canceled"} == {
        n for n, (s, _) in answers.items() if s == 200
    }
    assert {name for name, end in ended.items() if end == "succeeded"} == set(default.booked)
    assert {status for status, _ in answers.values()} <= {200, 409}


async def test_a_scheduled_payment_waits_for_its_time(api: Api, tenant, default):
    later = await api.pay(scheduledFor=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    now = await api.pay()

    await settle_due()
    before = list(default.booked), (await api.status(later["correlationId"]))["status"]
    await an_hour_passes(tenant)
    await settle_due()

    assert before == ([now["correlationId"]], "queued")
    assert (await api.status(later["correlationId"]))["status"] == "succeeded"


async def an_hour_passes(tenant) -> None:
    sql = "UPDATE payments_payment SET run_at = run_at - interval '1 hour' WHERE tenant_id = %s"
    await database.fetch(sql, [tenant.pk])


async def test_a_scheduled_payment_shows_its_time(api: Api):
    at = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=250_000)
    payment = await api.pay(scheduledFor=at.isoformat())

    said = await api.detail(payment["correlationId"])

    assert datetime.fromisoformat(said["scheduledFor"]) == at


async def test_a_scheduled_time_in_the_past_means_now(api: Api, default):
    payment = await api.pay(scheduledFor="2020-01-01T00:00:00Z")

    await settle_due()

    settled = await api.status(payment["correlationId"])
    assert (settled["status"], settled["attempts"]) == ("succeeded", 1)


async def test_a_scheduled_payment_can_be_canceled(api: Api):
    payment = await api.pay(scheduledFor=(datetime.now(UTC) + timedelta(days=1)).isoformat())

    status, said = await cancel(api, payment["correlationId"])

    assert (status, said["status"]) == (200, "canceled")


@pytest.mark.parametrize("order", [[0, 9, 5], [9, 0, 0, 1], [3, 2, 1, 0]])
async def test_a_higher_priority_goes_first_and_equals_by_age(api: Api, default, order):
    sent = [(await api.pay(priority=priority))["correlationId"] for priority in order]
    default.delays(0.02)

    async with at_work(capacity=1):
        await eventually(lambda: len(default.booked) == len(order))

    wanted = sorted(range(len(order)), key=lambda n: (-order[n], n))
    assert [request.correlation_id for request in default.books.requests] == [sent[n] for n in wanted]
