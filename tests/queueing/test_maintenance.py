"""Maintenance: pushes are buffered in order, pops return nothing, per tenant; the same during an outage of PostgreSQL."""

import asyncio
import time

import pytest

from queueing import spill
from queueing.broker import buffer, catalog, crypto, long_polls, maintenance, push_write
from queueing.spill import queue as spill_queue
from registry.data import db_breaker
from registry.errors import Unavailable
from tests.conftest import eventually

PUSHES = "/api/v1/system/maintenance"
POPS = "/api/v1/system/maintenance/pop"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Whether a maintenance is over is asked ten times as often as in the product."""
    assert maintenance.FRESH < 1
    monkeypatch.setattr(maintenance._modes, "fresh", maintenance.FRESH / 10)
    monkeypatch.setattr(maintenance._modes, "stale", maintenance.FRESH / 10)
    monkeypatch.setattr(buffer, "MAINTENANCE_CHECK", buffer.MAINTENANCE_CHECK / 10)
    monkeypatch.setattr(spill_queue, "RETRY", spill_queue.RETRY / 10)


async def switch(mq, path, enabled):
    return await mq.call("POST", path, json={"enabled": enabled}, status=200)


async def stored(mq):
    return (await mq.sql("SELECT count(*) FROM queueing_message WHERE tenant_id = %s", mq.tenant_id))[0][0]


async def until_over(mq, many):
    """Until so many messages are stored, and pushes are not held any more."""

    async def is_over():
        return await stored(mq) == many and await spill.is_clear(buffer.maintenance_kind(mq.tenant_id))

    await eventually(is_over)


async def test_pushes_are_buffered_and_stored_in_order_when_maintenance_ends(admin, queue):
    on = await switch(admin, PUSHES, True)

    answers = [(await admin.push(queue, n, partition="p"))[0] for n in range(5)]
    before = await stored(admin)
    off = await switch(admin, PUSHES, False)
    await until_over(admin, 5)

    assert (on["maintenanceMode"], off["maintenanceMode"], before) == (True, False, 0)
    assert [(a["status"], a["queue"], a["partition"]) for a in answers] == [("buffered", queue, "p")] * 5
    found = (await admin.pop(queue, batch=9))["messages"]
    assert [m["data"] for m in found] == [0, 1, 2, 3, 4]
    assert [m["transactionId"] for m in found] == [a["transactionId"] for a in answers]
    assert found[0]["producerSub"]


async def test_pushes_after_maintenance_are_stored_behind_buffered_ones(admin, queue):
    await switch(admin, PUSHES, True)
    await admin.push(queue, *range(50))

    await switch(admin, PUSHES, False)
    await admin.push(queue, *range(50, 60))
    await until_over(admin, 60)

    assert await admin.data(queue, batch=99) == list(range(60))


async def test_other_tenants_continue_during_maintenance(admin, foreign, queue):
    await switch(admin, PUSHES, True)
    await switch(admin, POPS, True)
    await admin.push(queue, "held")

    [theirs] = await foreign.push(queue, 1)

    assert theirs["status"] == "queued"
    assert await foreign.data(queue) == [1]
    await switch(admin, PUSHES, False)
    await until_over(admin, 1)


async def test_pops_return_nothing_during_maintenance(admin, queue):
    await admin.push(queue, 1)

    on = await switch(admin, POPS, True)
    during = await admin.pop(queue)
    await switch(admin, POPS, False)

    assert (on["maintenanceMode"], on["popMaintenanceMode"], during) == (False, True, None)
    assert await admin.data(queue) == [1]


async def test_a_pop_parked_before_maintenance_gets_nothing_either(admin, queue):
    await admin.push(queue, "first")
    await admin.data(queue, autoAck=True)
    parked = asyncio.create_task(admin.pop(queue, wait=True, timeout=60_000))
    await eventually(lambda: long_polls.parked().count)

    await switch(admin, POPS, True)
    await admin.push(queue, 1)

    assert await asyncio.wait_for(parked, 5) is None
    await switch(admin, POPS, False)
    assert await admin.data(queue) == [1]


async def test_a_push_that_the_spill_accepts_in_part_has_a_result_for_each_message(admin, queue, settings):
    """A 503 for all of it would have what was kept pushed once more, by every try."""
    await switch(admin, PUSHES, True)
    settings.SPILL_MAX_BYTES = 650_000  # 500 of these, which are appended together, and not the rest

    verdicts = await admin.push(queue, *("x" * 1000 for _ in range(600)))
    full = [now.refused for now in await spill.state() if now.refused]
    await switch(admin, PUSHES, False)
    await until_over(admin, 500)
    drained = [now.refused for now in await spill.state() if now.refused]

    assert [verdict["status"] for verdict in verdicts] == ["buffered"] * 500 + ["failed"] * 100
    assert "the spill holds" in verdicts[-1]["error"]
    assert [message["index"] for message in verdicts] == list(range(600))
    assert (len(full), drained) == (1, [])  # /health names a full spill for as long as it is full


async def test_maintenance_mode_shows_the_number_of_buffered_messages(admin, queue):
    await switch(admin, PUSHES, True)
    await admin.push(queue, 1, 2)

    found = await admin.call("GET", PUSHES, status=200)

    assert (found["bufferedMessages"], found["bufferHealthy"]) == (2, True)
    await switch(admin, PUSHES, False)
    await until_over(admin, 2)


async def test_maintenance_takes_effect_in_another_process_within_a_second(admin):
    """What this process remembers was read before somebody else's switch."""
    assert (await maintenance.modes(admin.tenant_id)).push is False
    await admin.sql("INSERT INTO queueing_maintenance (tenant_id, push) VALUES (%s, true)", admin.tenant_id)

    await eventually(lambda: _is_on(admin.tenant_id), within=10)  # a busy machine included


async def _is_on(tenant_id):
    return (await maintenance.modes(tenant_id)).push


@pytest.mark.parametrize("body", [{}, {"enabled": "yes"}, {"enabled": None}, {"enabled": 1}])
async def test_the_field_enabled_is_required(admin, body):
    refused = await admin.call("POST", PUSHES, json=body, status=400)

    assert refused["error"] == "enabled (boolean) is required"


async def test_only_an_administrators_key_switches(mq):
    await mq.call("POST", PUSHES, json={"enabled": True}, status=403)
    await mq.call("GET", PUSHES, status=403)

    assert await mq.sql("SELECT 1 FROM queueing_maintenance WHERE tenant_id = %s", mq.tenant_id) == []


async def test_a_push_that_was_buffered_twice_is_stored_once(admin, queue):
    await switch(admin, PUSHES, True)
    item = {"queue": queue, "payload": 1, "transactionId": "t"}
    await admin.push_items([item])
    await admin.push_items([item])
    await admin.push_items([{"queue": queue, "payload": 2, "transactionId": "u"}])

    await switch(admin, PUSHES, False)
    await until_over(admin, 2)

    assert await admin.data(queue, batch=9) == [1, 2]


async def test_only_messages_that_cannot_be_stored_are_quarantined(admin, queue):
    await admin.configure(queue, max_size=1)
    await switch(admin, PUSHES, True)
    await admin.push(queue, 1, 2)
    await admin.push("other" + queue, 3)

    await switch(admin, PUSHES, False)
    await until_over(admin, 2)

    [kept] = await spill.quarantined(buffer.maintenance_kind(admin.tenant_id))
    assert kept.reason == "the queue is full"
    await spill.drop(buffer.maintenance_kind(admin.tenant_id), kept.id)


# -- While PostgreSQL is away ------------------------------------------------------------------------------------


@pytest.fixture
async def away(mq, queue, monkeypatch):
    """The server is taken for away by who has somewhere else to turn, until `back()`."""
    await mq.push(queue, "warm")  # the key and the queue are known by now
    watching = db_breaker.current()
    monkeypatch.setattr(watching, "away", True)
    yield watching
    watching.away = False


async def test_pushes_during_an_outage_are_accepted_and_stored_afterwards(mq, queue, away):
    started = time.monotonic()
    answers = await mq.push(queue, 1, 2)
    took = time.monotonic() - started
    during = await stored(mq)

    away.away = False
    await eventually(lambda: spill.is_clear(buffer.KIND))

    assert [(a["status"], a["index"]) for a in answers] == [("buffered", 0), ("buffered", 1)]
    assert (during, took < 1) == (1, True)
    assert await mq.data(queue, batch=9) == ["warm", 1, 2]


async def test_a_push_whose_commit_was_not_acknowledged_is_stored_once(mq, queue, monkeypatch):
    """The commit went through, the connection did not come back with the answer."""
    write, lost = push_write.write, []

    async def losing(*args, **options):
        done = await write(*args, **options)
        if not lost:
            lost.append(1)
            raise Unavailable("the connection is gone")
        return done

    monkeypatch.setattr(push_write, "write", losing)

    [answer] = await mq.push(queue, 1)
    await eventually(lambda: spill.is_clear(buffer.KIND))

    assert answer["status"] == "buffered"
    assert [m["transactionId"] for m in (await mq.pop(queue, batch=9))["messages"]] == [answer["transactionId"]]


async def test_maintenance_that_begins_during_an_outage_holds_pushes_spilled_before(mq, queue, away, monkeypatch):
    asked, modes = [], maintenance.modes

    async def noted(tenant_id, **options):
        asked.append(tenant_id)
        return await modes(tenant_id, **options)

    monkeypatch.setattr(maintenance, "modes", noted)
    await mq.push(queue, 1)
    await maintenance.set(mq.tenant_id, push=True)
    before = len(asked)
    await eventually(lambda: len(asked) > before)  # a try to store that began earlier knew of no maintenance

    away.away = False
    await eventually(lambda: spill.is_clear(buffer.KIND))
    held = await stored(mq)
    await maintenance.set(mq.tenant_id, push=False)
    await until_over(mq, 2)

    assert held == 1
    assert await mq.data(queue, batch=9) == ["warm", 1]


# -- Encryption on the way ---------------------------------------------------------------------------------------


@pytest.fixture
def appended(monkeypatch):
    """What goes into the spill, byte for byte."""
    append, seen = spill.append, []

    def remembering(kind, tenant_id, data, **more):
        seen.append(bytes(data))
        return append(kind, tenant_id, data, **more)

    monkeypatch.setattr(spill, "append", remembering)
    return seen


async def test_a_payload_of_an_encrypted_queue_is_encrypted_once_before_it_is_buffered(keys, admin, queue, appended):
    await admin.configure(queue, encrypted=True)
    await switch(admin, PUSHES, True)
    await admin.push(queue, "a secret")

    await switch(admin, PUSHES, False)
    await until_over(admin, 1)

    assert not any(b"a secret" in data for data in appended)
    [(payload, key_id)] = await admin.sql(
        "SELECT payload, key_id FROM queueing_message WHERE tenant_id = %s", admin.tenant_id
    )
    assert (key_id, any(payload in data for data in appended)) == ("k1", True)
    assert await admin.data(queue) == ["a secret"]


async def test_with_a_key_every_buffered_payload_is_encrypted_and_stored_as_its_queue_requires(keys, admin, appended):
    await switch(admin, PUSHES, True)
    await admin.push("never-seen", "a secret")

    await switch(admin, PUSHES, False)
    await until_over(admin, 1)

    assert not any(b"a secret" in data for data in appended)
    assert await admin.sql("SELECT payload, key_id FROM queueing_message WHERE tenant_id = %s", admin.tenant_id) == [
        (b'"a secret"', None)
    ]


async def test_without_a_key_an_encrypted_queue_refuses_pushes(admin, queue, appended, monkeypatch):
    await admin.configure(queue, encrypted=True)
    monkeypatch.setattr(crypto, "_cipher", crypto.Cipher({}, setting=crypto.SETTING))
    await catalog.find(admin.tenant_id, queue)
    await switch(admin, PUSHES, True)

    refused = await admin.call("POST", "/api/v1/push", json={"items": [{"queue": queue, "payload": 1}]}, status=500)

    assert "QUEUE_ENCRYPTION_KEYS" in refused["error"]
    assert appended == []
