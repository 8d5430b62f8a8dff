"""Two services on one Redis database are isolated: every name in Redis has the service's name as prefix."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connection
from limits import parse
from redis import Redis

from queueing.spill.record import Record
from queueing.spill.shared import SharedStreamEngine
from queueing.work import rq_queues
from registry import migrations
from registry.data import channels, identity, rates
from registry.data.loop import PerLoop
from registry.data.postgresql.base import DatabaseWrapper


@pytest.fixture
def forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A process that starts, with a data folder of its own."""
    monkeypatch.setattr(settings, "REGISTRY_DATA", tmp_path)
    identity.read_name.cache_clear()
    return tmp_path


@pytest.fixture
def as_service(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Be another service from now on."""

    def become(name: str) -> None:
        monkeypatch.setattr(settings, "REGISTRY_ID", name)
        monkeypatch.setattr(rates, "limiters", PerLoop(rates.open_limiter, close=rates.close_limiter))

    return become


def away(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every thread: each has a connection of its own, and `cron` asks for the name in another one than the test's."""
    real = connection.get_connection_params()
    monkeypatch.setattr(DatabaseWrapper, "get_connection_params", lambda _: real | {"port": 1})


# -- The name ------------------------------------------------------------------------------------------------------


def test_the_identity_is_read_from_the_database_and_stays_the_same(forgotten):
    first = identity.name()
    identity.read_name.cache_clear()

    assert first == identity.name() != ""
    assert identity.prefix() == f"registry:{first}"


def test_every_database_has_its_own_identity(forgotten):
    make = (Path(migrations.__file__).parent / "sql" / "identity.sql").read_text()
    with psycopg.connect(**_superuser(), autocommit=True) as conn:
        conn.execute('DROP DATABASE IF EXISTS "test_second_service"')
        conn.execute('CREATE DATABASE "test_second_service" TEMPLATE template0')
    try:
        with psycopg.connect(**_superuser() | {"dbname": "test_second_service"}, autocommit=True) as conn:
            conn.execute(make)
            conn.execute(make)
            [second] = conn.execute(identity.SQL["name"]).fetchall()
    finally:
        with psycopg.connect(**_superuser(), autocommit=True) as conn:
            conn.execute('DROP DATABASE "test_second_service"')

    assert second[0] not in ("", identity.name())


def _superuser() -> dict:
    found = connection.get_connection_params()
    return {key: found[key] for key in ("host", "port", "user", "password") if key in found} | {"dbname": "postgres"}


def test_during_an_outage_the_identity_is_read_from_the_data_folder(forgotten, monkeypatch):
    first = identity.name()
    identity.read_name.cache_clear()
    away(monkeypatch)

    assert identity.name() == first


def test_without_a_stored_identity_an_unavailable_database_stops_the_start_with_an_explanation(forgotten, monkeypatch):
    away(monkeypatch)

    with pytest.raises(ImproperlyConfigured, match="was never asked from this data folder"):
        identity.name()


@pytest.mark.parametrize("command", ["worker", "cron"])
def test_a_command_without_an_identity_fails_with_one_line(forgotten, monkeypatch, command):
    away(monkeypatch)

    with pytest.raises(CommandError, match="was never asked from this data folder"):
        call_command(command)


def test_the_data_folder_of_another_database_is_ignored(forgotten, monkeypatch):
    identity.name()
    identity.read_name.cache_clear()

    with monkeypatch.context() as patch:  # over before the rows of the test are deleted
        patch.setitem(connection.settings_dict, "NAME", "another")
        away(patch)
        with pytest.raises(ImproperlyConfigured):
            identity.name()


def test_a_folder_that_cannot_be_written_is_tolerated(forgotten, monkeypatch):
    monkeypatch.setattr(settings, "REGISTRY_DATA", "/proc/nothing")

    assert identity.name()


# -- What carries it ---------------------------------------------------------------------------------------------------


async def test_live_messages_of_another_service_are_not_received(as_service, monkeypatch):
    as_service("one")
    ours = channels.OwnLayer(hosts=[settings.LIVE_REDIS_URL])
    as_service("two")
    theirs = channels.OwnLayer(hosts=[settings.LIVE_REDIS_URL])
    heard: list[bytes] = []
    monkeypatch.setattr(channels, "get_channel_layer", lambda: ours)
    listening = asyncio.create_task(channels.listen("live", heard.append))
    try:
        async with asyncio.timeout(10):
            while not heard:
                await theirs.group_send("live", {"type": "live", "data": b"theirs"})
                await ours.group_send("live", {"type": "live", "data": b"ours"})
                await asyncio.sleep(0.02)
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await ours.flush()
        await theirs.flush()

    assert set(heard) == {b"ours"}


async def test_a_stream_of_another_service_is_not_drained(as_service):
    def engine() -> SharedStreamEngine:
        return SharedStreamEngine(settings.SPILL_REDIS_URL, "payment", limit=10**6, lock_ttl=0.2)

    as_service("one")
    ours = engine()
    await ours.append([Record("payment", 1, datetime.now(UTC), b"ours")])
    as_service("two")
    theirs = engine()
    try:
        await theirs.append([Record("payment", 1, datetime.now(UTC), b"theirs")])
        async for _ in theirs.take_over():
            pass
        found = await theirs.batch(10)
        assert [item.record.data for item in found if item.record] == [b"theirs"]
        assert await theirs.shared_length() == await ours.shared_length() == 1
    finally:
        await ours.close()
        await theirs.close()
        with Redis.from_url(settings.SPILL_REDIS_URL) as client:
            for name in [*client.scan_iter("registry:one:spill:*"), *client.scan_iter("registry:two:spill:*")]:
                client.delete(name)


def test_jobs_of_another_service_are_not_run(as_service):
    with Redis.from_url(settings.RQ_REDIS_URL) as client:
        as_service("one")
        ours = rq_queues.queue("drain", client)
        ours.enqueue("queueing.work.entry.drain")
        as_service("two")
        theirs = rq_queues.queue("drain", client)

        assert (ours.count, theirs.count) == (1, 0)
        ours.delete(delete_jobs=True)


async def test_calls_of_another_service_do_not_count_against_limits(as_service):
    limit = parse("1/minute")
    as_service("one")
    assert (await rates.count(limit, "login", "192.0.2.1"))[0]
    assert not (await rates.count(limit, "login", "192.0.2.1"))[0]

    as_service("two")

    assert (await rates.count(limit, "login", "192.0.2.1"))[0]
    with Redis.from_url(settings.REDIS_URL) as client:
        client.delete(*client.scan_iter("registry:one:limits*"), *client.scan_iter("registry:two:limits*"))
