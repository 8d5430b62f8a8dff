"""A queue under load while parts of the service, readers and PostgreSQL are killed: nothing is lost, order is kept."""

import asyncio
import os
import signal
from pathlib import Path

import aiohttp
import pytest

from tests.chaos.flow import MORE, done_by_all, flows, more
from tests.chaos.outages import away
from tests.chaos.service import RETURN, Service
from tests.chaos.test_outage import AWAY, Sent, drained, in_postgres, warm
from tests.chaos.traffic import GROUPS, LEASE, Traffic, start_holding
from tests.conftest import eventually

OUTAGE = float(os.environ.get("CHAOS_OUTAGE") or AWAY)  # seconds that PostgreSQL is away under load


@pytest.fixture(scope="module")
async def traffic(service: Service) -> Traffic:
    """One queue for the whole module: every test also judges what the ones before left."""
    return Traffic(service.url, service.key)


async def test_messages_of_a_killed_reader_are_delivered_to_others_once_its_lease_has_expired(
    traffic: Traffic, tmp_path: Path
):
    notes = tmp_path / "notes"

    async with traffic.flowing():
        reader = start_holding(traffic, GROUPS[0], notes)
        await eventually(lambda: notes.exists() and notes.read_bytes().endswith(b"\n"))
        reader.kill()
        reader.wait()
        [got] = traffic.book.copy(notes)
        await more(lambda: done_by_all(traffic))
    others = [hand.got for hand in traffic.book.hands.values() if hand.got.group == got.group]
    later = [other for other in others if other.received > got.received]  # some may have been given back before
    again = [other for other in later if {*other.messages} & {*got.messages}]

    assert again
    assert min(other.received for other in again) >= got.sent + LEASE
    assert await traffic.faults() == []


async def test_postgresql_stopped_under_load_delays_messages_and_loses_none(service: Service, traffic: Traffic):
    """With the spill in between, from whose other end they come in the order in which they were accepted."""
    async with traffic.flowing():
        await flows(traffic)
        async with away(service):
            await asyncio.sleep(OUTAGE)
            buffered = traffic.statuses["buffered"]
        await eventually(service.postgres.pid, within=RETURN)
        await flows(traffic)

    assert buffered > 0
    assert await traffic.faults() == []


async def test_a_web_process_killed_with_messages_and_payments_in_its_spill_loses_none(
    service: Service, traffic: Traffic, session: aiohttp.ClientSession
):
    buffered_before, sender = traffic.statuses["buffered"], Sent()
    await warm(session)

    async with traffic.flowing():
        await flows(traffic)
        async with away(service):
            await eventually(lambda: traffic.statuses["buffered"] > buffered_before + MORE)
            await asyncio.gather(*(sender.pay(session) for _ in range(40)))
            web = service.part("registry.servers.serve")
            assert web
            os.kill(web, signal.SIGKILL)
            await eventually(lambda: service.part("registry.servers.serve") not in (None, web))
            left = service.spilled("push"), service.spilled()
        await flows(traffic)
    await drained(service)
    found = await in_postgres(service)

    assert min(left) > 0
    assert await traffic.faults() == []
    assert sender.statuses == [202] * 40
    assert [found[name][1] for name in sender.accepted] == list(sender.accepted.values())
    assert list(service.data.glob("spill/aside/*")) == []
