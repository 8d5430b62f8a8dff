"""Idempotency: the same id with the same content is the same payment; other content is a conflict."""

import asyncio
import os
import sys
import time
from typing import Any
from uuid import uuid4

import pytest
from channels_redis.pubsub import RedisPubSubChannelLayer

from payments.api import prefer
from payments.models import Payment, PaymentEvent
from registry.data import channels, database, live
from registry.data.loop import end_loop
from registry.models import Tenant
from tests.conftest import Api, eventually
from tests.servers import other_pool
from tests.settling import settle_due


async def post(api: Api, body: dict[str, Any], **headers: str) -> tuple[int, bytes, str | None]:
    async with api.post("/payments", json=body, headers=headers) as response:
        return response.status, await response.read(), response.headers.get("Idempotent-Replayed")


def payment(**fields: Any) -> dict[str, Any]:
    return {"correlationId": str(uuid4()), "amount": "19.90", **fields}


async def stored(tenant: Tenant) -> tuple[int, int]:
    """Payments and events."""
    async with database.own_connection():
        return (
            await Payment.async_objects.of(tenant.pk).acount(),
            await PaymentEvent.async_objects.filter(tenant_id=tenant.pk).acount(),
        )


async def test_a_repeated_payment_gets_the_same_bytes(api: Api, tenant):
    body = payment(description="a chair", metadata={"order": 7}, priority=3)
    first = await post(api, body)

    again = await post(api, body)

    assert first == (202, first[1], None)
    assert again == (202, first[1], "true")
    assert await stored(tenant) == (1, 1)


async def test_a_payment_that_is_settled_replays_its_first_answer(api: Api, default):
    body = payment()
    first = await post(api, body)
    await settle_due()

    again = await post(api, body)

    assert again == (202, first[1], "true")
    assert len(default.received) == 1


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ({"amount": 19.9}, {"amount": "19.90"}),
        ({"amount": "19.90"}, {"amount": "1990e-2"}),
        ({"metadata": {"a": 1, "b": 2}}, {"metadata": {"b": 2, "a": 1}}),
        ({"metadata": {}}, {}),
        ({"metadata": None}, {"metadata": {}}),
        ({"description": ""}, {}),
        ({"currency": "BRL"}, {}),
        ({"currency": None}, {"currency": "BRL"}),
        ({"priority": 0}, {}),
        ({"scheduledFor": "2025-07-15T12:00:00Z"}, {"scheduledFor": "2025-07-15T09:00:00-03:00"}),
    ],
)
async def test_equivalent_content_is_a_replay(api: Api, one, same):
    body = payment()
    await post(api, body | one)

    status, _, replayed = await post(api, body | same)

    assert (status, replayed) == (202, "true")


@pytest.mark.parametrize(
    "other",
    [
        {"amount": "19.91"},
        {"amount": "1990", "currency": "JPY"},
        {"currency": "USD"},
        {"description": "a table"},
        {"metadata": {"order": 8}},
        {"metadata": {"order": "7"}},
        {"metadata": {}},
        {"priority": 1},
        {"scheduledFor": "2025-07-15T12:00:00Z"},
        {"processor": "default"},
    ],
)
async def test_other_content_under_the_same_id_is_409(api: Api, tenant, default, other):
    body = payment(description="a chair", metadata={"order": 7})
    await post(api, body)

    async with api.post("/payments", json=body | other) as response:
        assert response.status == 409
        assert response.content_type == "application/problem+json"
    assert await stored(tenant) == (1, 1)


async def test_fifty_concurrent_requests_are_one_payment(api: Api, tenant):
    body = payment()

    answers = await asyncio.gather(*(post(api, body) for _ in range(50)))

    assert {(status, text) for status, text, _ in answers} == {(202, answers[0][1])}
    assert sorted(replayed or "" for *_, replayed in answers) == ["", *["true"] * 49]
    assert await stored(tenant) == (1, 1)


async def test_of_many_concurrent_contents_one_wins_and_the_others_conflict(api: Api, tenant):
    bodies = [payment(amount=f"{n + 1}.00") for n in range(20)]
    name = bodies[0]["correlationId"]

    answers = await asyncio.gather(*(post(api, body | {"correlationId": name}) for body in bodies))

    assert sorted(status for status, *_ in answers) == [202, *[409] * 19]
    winner = next(n for n, (status, *_) in enumerate(answers) if status == 202)
    assert (await api.status(name))["amount"] == bodies[winner]["amount"]
    assert await stored(tenant) == (1, 1)


async def test_a_concurrent_insert_of_the_same_id_is_waited_for(api: Api, tenant):
    """Another process has written the row and not committed yet: neither an error nor a second row."""
    body = payment()
    async with database.connection() as elsewhere:
        async with elsewhere.transaction(force_rollback=True):
            await elsewhere.execute(
                "INSERT INTO payments_payment (tenant_id, correlation_id, fingerprint, amount, currency, description, wanted_processor,"
                " status, sequence, code, refunded, attempt, priority) VALUES (%s, %s, '', 1, 'BRL', '', '', 'queued', 1, '', 0, 0, 0)",
                (tenant.pk, body["correlationId"]),
            )
            waiting = asyncio.create_task(post(api, body))
            await until_blocked()
            assert not waiting.done()
    status, _, replayed = await waiting

    assert (status, replayed) == (202, None)
    assert await stored(tenant) == (1, 1)


async def until_blocked() -> None:
    """Until a statement of this database waits for another transaction."""
    async with asyncio.timeout(10):
        while not (
            await database.fetch("SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted")
        )[0][0]:
            await asyncio.sleep(0.01)


async def test_two_tenants_may_use_the_same_id(api: Api, stranger: Api):
    body = payment()
    await post(api, body)

    status, _, replayed = await post(stranger, body | {"amount": "5.00"})

    assert (status, replayed) == (202, None)
    assert (await api.status(body["correlationId"]))["amount"] == "19.90"
    assert (await stranger.status(body["correlationId"]))["amount"] == "5.00"


# -- The Idempotency-Key header ----------------------------------------------------------------------------------


async def test_an_idempotency_key_replaces_an_id(api: Api, tenant):
    first = await post(api, {"amount": "19.90"}, **{"Idempotency-Key": "order 4711"})

    again = await post(api, {"amount": 19.9}, **{"Idempotency-Key": "order 4711"})
    other = await post(api, {"amount": "20.00"}, **{"Idempotency-Key": "order 4711"})

    assert again == (202, first[1], "true")
    assert other[0] == 409
    assert await stored(tenant) == (1, 1)


async def test_the_same_idempotency_key_of_two_tenants_are_two_payments(api: Api, stranger: Api):
    _, mine, _ = await post(api, {"amount": "19.90"}, **{"Idempotency-Key": "order 4711"})

    _, theirs, replayed = await post(stranger, {"amount": "19.90"}, **{"Idempotency-Key": "order 4711"})

    assert replayed is None
    assert mine[:60] != theirs[:60]


async def test_without_id_or_key_every_call_is_a_payment_of_its_own(api: Api, tenant):
    await asyncio.gather(*(post(api, {"amount": "19.90"}) for _ in range(3)))

    assert await stored(tenant) == (3, 3)


# -- From another process ------------------------------------------------------------------------------------------

OTHER_PROCESS = """
import asyncio, sys, django; django.setup()
from uuid import UUID
from django.conf import settings; from django.db import connections
settings.DATABASES["default"]["NAME"] = connections["default"].settings_dict["NAME"] = sys.argv[1]
from payments.errors import DifferentContent; from payments.intake.intake import submit
from payments.intake.payment import NewPayment; from registry.data import database
from django_async_backend.db import async_connections
async_connections.settings["default"]["NAME"] = sys.argv[1]

async def main():
    for amount in (1990, 1991):
        try:
            receipt = await submit(NewPayment(tenant_id=int(sys.argv[2]), correlation_id=UUID(sys.argv[3]), amount=amount, currency="BRL"))
            print("replayed" if receipt.replayed else "new")
        except DifferentContent:
            print("conflict")
    await database.pools.close()

asyncio.run(main())
"""


async def test_another_process_replays_the_payment_too(api: Api, tenant):
    body = payment()
    await post(api, body)
    name = (await database.fetch("SELECT current_database()"))[0][0]

    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OTHER_PROCESS, name, str(tenant.pk), body["correlationId"], stdout=-1, env=os.environ
    )
    said, _ = await other.communicate()

    assert said.split() == [b"replayed", b"conflict"]
    assert await stored(tenant) == (1, 1)


# -- Prefer: wait --------------------------------------------------------------------------------------------------


async def test_prefer_wait_answers_with_the_settled_payment(api: Api, worker, default):
    async with api.post("/payments", json=payment(), headers={"Prefer": "wait=10"}) as response:
        said = await response.json()

    assert (response.status, said["status"], said["processor"]) == (200, "succeeded", "default")
    assert response.headers["Preference-Applied"] == "wait=10"
    assert said["attempts"][0]["outcome"] == "booked"


async def test_prefer_wait_answers_202_when_that_takes_longer(api: Api, monkeypatch):
    monkeypatch.setattr(prefer, "LONGEST_WAIT", 0.1)
    async with api.post("/payments", json=payment(), headers={"Prefer": "respond-async, wait=1"}) as response:
        said = await response.json()

    assert (response.status, said["status"]) == (202, "queued")
    assert response.headers["Preference-Applied"] == "respond-async"
    assert "liveUrl" in said


async def test_prefer_wait_of_a_replay_answers_at_once_with_what_is_settled(api: Api, default):
    body = payment()
    await post(api, body)
    await settle_due()

    async with api.post("/payments", json=body, headers={"Prefer": "wait=10"}) as response:
        said = await response.json()

    assert (response.status, said["status"]) == (200, "succeeded")
    assert response.headers["Idempotent-Replayed"] == "true"
    assert len(default.booked) == 1


async def test_an_outage_while_the_caller_waits_does_not_turn_a_durable_payment_into_a_503(
    api: Api, tenant, monkeypatch
):
    """Whoever reads a 503 sends another payment, and this one is owed already."""
    monkeypatch.setattr(prefer, "LONGEST_WAIT", 0.5)
    body = payment()
    sending = asyncio.create_task(waited_for(api, body, seconds=1))
    await eventually(lambda: ("payments", tenant.pk) in live.hub().feeds)  # accepted, and waiting to be settled

    with monkeypatch.context() as away:
        away.setattr(database.settings, "DB_POOL_TIMEOUT", 0.2)
        async with other_pool(port=1):
            status, said, applied = await sending

    assert (status, said["status"], said["correlationId"]) == (202, "queued", body["correlationId"])
    assert applied == "respond-async"
    assert await stored(tenant) == (1, 1)


async def test_without_redis_a_waiting_caller_still_gets_the_settled_payment(api: Api, worker, default, monkeypatch):
    """The live message is a hint: the database tells a moment later."""
    nobody = RedisPubSubChannelLayer(hosts=["redis://127.0.0.1:1/0"])
    await end_loop()
    monkeypatch.setattr(channels, "get_channel_layer", lambda: nobody)
    monkeypatch.setattr(live, "TICK", 0.2)
    default.delays(200)  # long enough to be waiting by then

    started = time.monotonic()
    status, said, _ = await waited_for(api, payment(), seconds=20)
    took = time.monotonic() - started
    await end_loop()

    assert (status, said["status"]) == (200, "succeeded")
    assert took < 10


async def waited_for(api: Api, body: dict[str, Any], *, seconds: int) -> tuple[int, dict[str, Any], str | None]:
    async with api.post("/payments", json=body, headers={"Prefer": f"wait={seconds}"}) as response:
        said = await response.json(content_type=None)
        return response.status, said, response.headers.get("Preference-Applied")
