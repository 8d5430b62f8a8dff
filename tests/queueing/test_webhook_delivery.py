"""Deliveries: order, endpoints that fail beside others, workers that die, hostile receivers."""

import asyncio
import time
from collections import Counter
from uuid import uuid4

import pytest

from queueing.models import Worker
from queueing.outbound import fanout
from queueing.outbound import work as delivering_module
from queueing.outbound.work import DeliveryWork
from registry.data import database
from registry.http.ssrf import Outside
from tests.bed.receiver import Receiver
from tests.bed.wire import Silence, response
from tests.conftest import eventually
from tests.depth import deep
from tests.factories import in_thread, make_payment, make_tenant
from tests.queueing.hooks import (
    again,
    deliveries,
    delivering,
    endpoint,
    events,
    fan_out,
    make_due,
    tries,
    until,
    until_tried,
)
from tests.registry.http_server import Server, in_pieces


@pytest.fixture
async def receiver():
    async with Receiver() as found:
        yield found


def heard_of(receiver: Receiver, payment) -> list[int]:
    return [one.data["sequence"] for one in receiver.heard if one.data["correlationId"] == str(payment.correlation_id)]


# -- Order -----------------------------------------------------------------------------------------------------------


async def test_an_ordered_endpoint_receives_the_events_of_a_payment_one_after_the_other(tenant, receiver):
    hook = await endpoint(tenant, receiver.url, ordered=True)
    one, other = [await in_thread(make_payment, tenant) for _ in range(2)]
    open_at_once: list[int] = []
    under_way: Counter[str] = Counter()

    async def slowly(heard):
        under_way[heard.data["correlationId"]] += 1
        open_at_once.append(under_way[heard.data["correlationId"]])
        await asyncio.sleep(0.005)
        under_way[heard.data["correlationId"]] -= 1
        return response(200)

    receiver.answers_by(slowly)
    for sequence in range(2, 6):
        await events(one, sequence, sequence)
        await events(other, sequence, sequence)

    async with delivering():
        await until(hook, "delivered", count=10)

    assert heard_of(receiver, one) == heard_of(receiver, other) == [1, 2, 3, 4, 5]
    assert max(open_at_once) == 1


async def test_the_next_event_of_a_payment_waits_while_the_one_before_fails_and_no_other_payments_does(
    tenant, receiver
):
    hook = await endpoint(tenant, receiver.url, ordered=True)
    stuck, free = [await in_thread(make_payment, tenant) for _ in range(2)]
    await events(stuck, 2, 3)
    await events(free, 2, 3)
    bad = str(stuck.correlation_id)
    receiver.answers_by(lambda heard: response(500 if heard.data["correlationId"] == bad else 200))

    async with delivering():
        await eventually(lambda: heard_of(receiver, free) == [1, 2, 3])
        await eventually(lambda: heard_of(receiver, stuck) == [1])
        held = [d.status for d in await deliveries(hook) if str(d.subject) == bad]
        receiver.answers(200)
        await make_due(hook)
        await until(hook, "delivered", count=6)

    assert held == ["pending", "held", "held"]
    assert heard_of(receiver, stuck) == [1, 1, 2, 3]


async def test_once_the_one_before_is_given_up_the_next_goes_out(tenant, receiver):
    hook = await endpoint(tenant, receiver.url, ordered=True)
    payment = await in_thread(make_payment, tenant)
    await events(payment, 2, 2)
    await fan_out()
    await database.fetch("UPDATE queueing_webhookdelivery SET attempt = 9 WHERE status = 'pending'")
    receiver.answers_by(lambda heard: response(500 if heard.data["sequence"] == 1 else 200))

    async with delivering():
        await until(hook, "dead", "delivered", count=2)

    assert [d.status for d in await deliveries(hook)] == ["dead", "delivered"]


MANY = deep(15, 40)


async def test_an_event_fanned_out_while_the_one_before_is_closed_is_delivered(tenant, receiver):
    """The race between a fan-out that holds a delivery back and the settlement that releases it."""
    hook = await endpoint(tenant, receiver.url, ordered=True)
    payment = await in_thread(make_payment, tenant)

    async with delivering():
        for sequence in range(2, MANY + 1):
            await events(payment, sequence, sequence)
        await until(hook, "delivered", count=MANY)

    assert heard_of(receiver, payment) == list(range(1, MANY + 1))


async def test_closing_a_delivery_waits_for_a_running_fan_out(tenant, receiver):
    hook = await endpoint(tenant, receiver.url, ordered=True)
    payment = await in_thread(make_payment, tenant)
    await fan_out()

    async with database.transaction() as conn:  # a fan-out that has seen the first one open, and has not committed
        await database.rows(
            conn,
            fanout.SQL["lock"],
            {
                "tenant": tenant.pk,
                "ids": [hook.pk],
                "source": "payments",
                "after": (await again(hook)).positions["payments"] - 1,
            },
        )
        await conn.execute("SELECT FROM queueing_webhookendpoint WHERE id = %s FOR NO KEY UPDATE", [hook.pk])
        async with delivering():
            await eventually(lambda: receiver.calls == 1)
            await eventually(lambda: waits_for_a_lock("alone"))
            still = [d.status for d in await deliveries(hook)]
            await conn.execute("COMMIT")
            await until(hook, "delivered")

    assert still == ["pending"]
    assert payment


async def waits_for_a_lock(_name: str) -> bool:
    rows = await database.fetch(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%queueing_webhookendpoint%%'"
    )
    return rows[0][0] > 0


async def test_replays_of_an_ordered_endpoint_keep_the_order_too(tenant, receiver):

    from queueing.outbound.deliveries import replay_of

    hook = await endpoint(tenant, receiver.url, ordered=True)
    payment = await in_thread(make_payment, tenant)
    await events(payment, 2, 4)
    async with delivering():
        await until(hook, "delivered", count=4)
        receiver.heard.clear()
        async with database.own_connection():
            done = await replay_of(await again(hook))
        await eventually(lambda: len(receiver.heard) == 4)
        await until(hook, "delivered", count=4)

    assert done == 4
    assert heard_of(receiver, payment) == [1, 2, 3, 4]


# -- Neighbours ------------------------------------------------------------------------------------------------------


async def test_endpoints_that_never_answer_delay_no_others(tenant, receiver):
    def choose(heard):
        return Silence() if heard.target.startswith("/hook/dead") else response(200)

    receiver.answers_by(choose)
    dead = [await endpoint(tenant, f"{receiver.url}/dead{n}") for n in range(5)]
    well = await endpoint(tenant, f"{receiver.url}/well")
    payment = await in_thread(make_payment, tenant)
    await events(payment, 2, 200)

    async with delivering() as drain:
        await until(well, "delivered", count=200)
        silent = sum(1 for [due] in drain.in_flight.values() if due.endpoint_id in {d.pk for d in dead})
        for task in list(drain.in_flight):
            task.cancel()

    assert 0 < silent <= 5 * 4


async def test_a_long_backlog_of_one_endpoint_does_not_delay_another(tenant, receiver):
    other = await in_thread(make_tenant, f"other-{uuid4().hex[:8]}")
    busy, quiet = await endpoint(tenant, f"{receiver.url}/busy"), await endpoint(other, f"{receiver.url}/quiet")
    payment = await in_thread(make_payment, tenant)
    await events(payment, 2, 400)
    await fan_out(3)
    await in_thread(make_payment, other)
    await fan_out()

    async with delivering():
        await until(quiet, "delivered")
        before = sum(1 for one in receiver.heard if one.target == "/hook/busy")
        await until(busy, "delivered", count=400)

    assert before < 100


async def test_a_disabled_endpoint_continues_where_it_stopped_once_enabled(tenant, receiver):
    hook = await endpoint(tenant, receiver.url, enabled=False)
    await in_thread(make_payment, tenant)
    other = await endpoint(tenant, f"{receiver.url}/other")
    await in_thread(make_payment, tenant)

    async with delivering():
        await until(other, "delivered")
        before = await deliveries(hook)
        await database.fetch("UPDATE queueing_webhookendpoint SET enabled = true WHERE id = %s", [hook.pk])
        await until(hook, "delivered", count=2)

    assert before == []


# -- Workers that die -------------------------------------------------------------------------------------------------


async def test_a_delivery_of_a_dead_worker_is_sent_again_under_the_same_id_and_its_late_outcome_is_refused(
    tenant, receiver
):
    hook = await endpoint(tenant, receiver.url)
    await in_thread(make_payment, tenant)
    await fan_out()
    dying = DeliveryWork()
    silent = await Worker.async_objects.acreate(queue="webhooks", hostname="unplugged", pid=1)
    await database.release()
    [due] = await dying.claim(silent.id, 5)
    arrived = await dying._attempt(due)  # and the outcome is not written
    await database.fetch("UPDATE queueing_worker SET heartbeat_at = now() - interval '6 seconds'")
    receiver.answers(500)

    async with delivering():
        await until_tried(hook, 2)
        [late] = await dying.write([arrived])
        [standing] = await deliveries(hook)
    await dying.close()

    assert receiver.calls == 2
    assert len(set(receiver.ids)) == 1
    assert late is False
    assert (standing.status, standing.error) == ("pending", "answered 500")
    assert [made.number for made in await tries(standing)] == [2]


async def test_a_stopped_worker_gives_back_hanging_deliveries_and_the_attempt_does_not_count(
    tenant, receiver, monkeypatch
):
    monkeypatch.setattr("queueing.work.drain.GRACE", 0.05)
    receiver.is_silent()
    hook = await endpoint(tenant, receiver.url)
    await in_thread(make_payment, tenant)

    async with delivering():
        await eventually(lambda: receiver.calls == 1)

    [left] = await deliveries(hook)
    assert (left.status, left.lease_id, left.attempt - left.tries_from) == ("pending", None, 0)


# -- Receivers that play tricks ------------------------------------------------------------------------------------------


async def test_a_redirect_is_not_followed_wherever_it_leads(tenant, receiver):
    async with Receiver() as inside:
        receiver.answers(302, b"", location=inside.url)
        hook = await endpoint(tenant, receiver.url)
        await in_thread(make_payment, tenant)

        async with delivering():
            failed = await until_tried(hook)

    assert failed.error == "answered 302: redirects are not followed"
    assert inside.calls == 0


async def test_a_response_that_arrives_byte_by_byte_is_cut_off(tenant, monkeypatch):
    assert delivering_module.SEND_TIMEOUT == 15
    monkeypatch.setattr(delivering_module, "SEND_TIMEOUT", 0.2)

    async def drip(reader, writer, server):
        await server.hear(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"x-more: y\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with Server(drip) as server:
        hook = await endpoint(tenant, server.url)
        await in_thread(make_payment, tenant)
        started = time.monotonic()

        async with delivering():
            failed = await until_tried(hook)

    assert failed.error.startswith("no whole answer within")
    assert time.monotonic() - started < 5


async def test_a_response_that_is_not_http_is_reported_as_such(tenant):
    async with Server(in_pieces(b"220 mail.example ESMTP\r\n")) as server:
        hook = await endpoint(tenant, server.url)
        await in_thread(make_payment, tenant)

        async with delivering():
            failed = await until_tried(hook)

    assert failed.error.startswith("the response is not HTTP")


async def test_bytes_that_cannot_be_stored_are_replaced_in_the_log(tenant, receiver):
    receiver.answers(500, b"\0\xff\xfe no text", x_odd="caf\u00e9")
    hook = await endpoint(tenant, receiver.url)
    await in_thread(make_payment, tenant)

    async with delivering():
        failed = await until_tried(hook)

    [made] = await tries(failed)
    assert made.body.endswith(" no text")
    assert "\0" not in made.body


async def test_a_host_name_that_now_resolves_to_a_private_address_is_not_called(tenant, receiver, monkeypatch):
    async def look_up(self: Outside, host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    monkeypatch.setattr(Outside, "look_up", look_up)
    hook = await endpoint(tenant, f"http://shop.example:{receiver.port}/hook")
    await in_thread(make_payment, tenant)

    async with delivering(outside=Outside(private=False)):
        failed = await until_tried(hook)

    assert failed.error == "no connection: shop.example is not a public address"
    assert receiver.calls == 0


async def test_a_live_tenant_gets_no_deliveries_over_plain_http(tenant, receiver):
    hook = await endpoint(tenant, receiver.url)
    await database.fetch("UPDATE registry_tenant SET mode = 'live' WHERE id = %s", [tenant.pk])
    await in_thread(make_payment, tenant)

    async with delivering():
        failed = await until_tried(hook)

    assert failed.error == "not sent: a live tenant's address begins with https://"
    assert receiver.calls == 0


async def test_secrets_that_cannot_be_decrypted_make_a_failed_attempt_and_no_crash(tenant, receiver):
    hook = await endpoint(tenant, receiver.url)
    await database.fetch("UPDATE queueing_webhookendpoint SET secrets = 'nonsense' WHERE id = %s", [hook.pk])
    await in_thread(make_payment, tenant)

    async with delivering():
        failed = await until_tried(hook)

    assert "SECRET_KEY" in failed.error
    assert receiver.calls == 0
