"""Who evaluates the alert rules: a lease for the service, a lock for a host, taken over within seconds; and one message each under two."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection
from prometheus_client import REGISTRY

from registry.data import lease, refusals
from registry.data.faults import Fault
from registry.data.lease import HeldLease
from registry.edge.status import REFUSED
from registry.models import Lease
from registry.operators.alerts.lock import HeldFile
from tests.conftest import eventually
from tests.registry.alerting import alerts, evaluator, messages, rule, states_of_alerts, steered
from tests.servers import unreachable

TAKEN_OVER = 5.0  # seconds
HOLDS = """
import asyncio, sys
import django
django.setup()
from django.conf import settings
from pathlib import Path
from registry.data.lease import RENEW_EVERY, HeldLease
from registry.operators.alerts.lock import HeldFile

async def hold():
    one = HeldLease("work") if sys.argv[1] == "lease" else HeldFile(Path(sys.argv[2]), "another process")
    while True:
        if await one.hold():
            print("held", flush=True)
        await asyncio.sleep(RENEW_EVERY)

asyncio.run(hold())
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[list[subprocess.Popen]]:
    """Real processes that hold something; killed at the end."""
    running: list[subprocess.Popen] = []
    yield running
    for one in running:
        one.kill()
        one.wait()
        assert one.stdout
        one.stdout.close()


async def holding(running: list[subprocess.Popen], environ: dict[str, str], *what: str) -> subprocess.Popen:
    one = subprocess.Popen([sys.executable, "-c", HOLDS, *what], env=environ, stdout=subprocess.PIPE, text=True)
    running.append(one)
    assert one.stdout
    assert await asyncio.to_thread(one.stdout.readline) == "held\n"
    return one


def environment() -> dict[str, str]:
    """This test's database, for another process."""
    import os

    at = connection.settings_dict
    url = f"postgres://{at['USER']}:{at['PASSWORD']}@{at['HOST']}:{at['PORT']}/{at['NAME']}"
    return {
        **os.environ,
        "DATABASE_URL": url,
        "REDIS_URL": settings.REDIS_URL,
        "DJANGO_SETTINGS_MODULE": "registry.settings",
    }


async def seconds_until_held(one: HeldLease | HeldFile) -> float:
    """Asks as often as an evaluator does."""
    began = time.monotonic()
    while not await one.hold():
        assert time.monotonic() - began < 30
        await asyncio.sleep(lease.RENEW_EVERY)
    return time.monotonic() - began


# -- The lease ---------------------------------------------------------------------------------------------------------


async def test_a_lease_is_held_by_one_and_by_the_next_once_it_is_released():
    first, second = HeldLease("work"), HeldLease("work")

    assert [await first.hold(), await second.hold(), await first.hold()] == [True, False, True]
    await first.release()
    assert [await second.hold(), await first.hold()] == [True, False]
    assert (await Lease.async_objects.aget(pk="work")).holder == second.holder


async def test_leases_of_other_names_are_held_by_others():
    assert [await HeldLease(name).hold() for name in ("work", "other work")] == [True, True]


async def test_a_lease_that_is_not_renewed_is_taken_over_within_seconds():
    first, second = HeldLease("work"), HeldLease("work")
    assert await first.hold()

    assert 1 < await seconds_until_held(second) < TAKEN_OVER
    assert not await first.hold()


async def test_many_that_ask_at_once_make_one_holder():
    asked = await asyncio.gather(*(HeldLease("work").hold() for _ in range(20)))

    assert asked.count(True) == 1


async def test_a_lease_from_before_the_clock_of_the_server_was_set_back_is_taken_over():
    await Lease.async_objects.acreate(name="work", holder="dead", until=datetime.now(UTC) + timedelta(hours=1))

    assert await HeldLease("work").hold()


async def test_the_lease_of_a_process_that_is_killed_is_taken_over_within_seconds(process):
    holder = await holding(process, environment(), "lease")
    mine = HeldLease("work")
    held_while_it_lives = await mine.hold()

    holder.send_signal(signal.SIGKILL)

    assert not held_while_it_lives
    assert await seconds_until_held(mine) < TAKEN_OVER


async def test_nobody_holds_a_lease_while_postgresql_is_away():
    one = HeldLease("work")
    assert await one.hold()

    async with unreachable():
        assert not await one.hold()
        await one.release()


# -- The lock of a host ---------------------------------------------------------------------------------------------------


async def test_the_lock_of_a_process_that_is_killed_is_taken_over_at_once(process, tmp_path: Path):
    path = tmp_path / "alerts.lock"
    holder = await holding(process, environment(), "file", str(path))
    mine = HeldFile(path, "this process")
    held_while_it_lives = await mine.hold()

    holder.send_signal(signal.SIGKILL)

    assert not held_while_it_lives
    assert await seconds_until_held(mine) < TAKEN_OVER
    await mine.release()


async def test_a_lock_is_held_by_one_and_by_the_next_once_it_is_released(tmp_path: Path):
    first, second = (HeldFile(tmp_path / "folder" / "alerts.lock", name) for name in ("first", "second"))

    assert [await first.hold(), await second.hold(), await first.hold()] == [True, False, True]
    await first.release()
    assert await second.hold()
    await second.release()


async def test_a_lock_in_a_folder_that_cannot_be_made_is_not_held(tmp_path: Path):
    (tmp_path / "file").touch()

    assert not await HeldFile(tmp_path / "file" / "alerts.lock", "nobody").hold()


# -- Two evaluators -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["service", "host"])
async def test_two_evaluators_at_once_make_one_alert_and_one_message_for_each_change(scope: str, settings, monkeypatch):
    settings.ALERT_WEBHOOK_URL, settings.ALERT_WEBHOOK_SECRET = "http://127.0.0.1:1/", "whsec_" + "c2VjcmV0" * 4
    monkeypatch.setattr("registry.operators.alerts.states.KEEP_FIRING", 0)
    with steered(rule(scope=scope), rule(name="steered.other", expression="max(steered) > 6", scope=scope)) as gauge:
        pair = [evaluator(scope), evaluator(scope)]
        for value in (9, 9, 1, 1, 1, 9):
            gauge.set(value)
            await asyncio.gather(*(one.evaluate() for one in pair))

    assert sorted(await states_of_alerts()) == ["firing"] * 2 + ["resolved"] * 2
    said = sorted(f"{one.rule} {one.status}" for one in await alerts())
    told = "".join(message.body for message in await messages())
    assert told.count('"status":"firing"') == 4
    assert told.count('"status":"resolved"') == 2
    assert said == [f"steered.{name} {status}" for name in ("high", "other") for status in ("firing", "resolved")]


async def test_a_web_process_forgets_a_refused_statement_that_it_does_not_send_any_more(monkeypatch):
    monkeypatch.setattr(refusals, "REPORT_AFTER", 0)
    monkeypatch.setattr(refusals, "EXPIRE_AFTER", 0.1)
    refusals.record("SELECT nothing", Fault.MISSING, LookupError("no such table"))
    before = REGISTRY.get_sample_value(REFUSED, {"statement": "SELECT nothing"})
    with steered():
        task = asyncio.create_task(evaluator().run())
        await eventually(lambda: not REGISTRY.get_sample_value(REFUSED, {"statement": "SELECT nothing"}))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert before == 1


async def test_an_evaluator_that_is_elected_evaluates_at_once_and_every_few_seconds(monkeypatch):
    monkeypatch.setattr("registry.operators.alerts.evaluator.EVERY", {"host": 0.1})
    monkeypatch.setattr("registry.operators.alerts.evaluator.RENEW_EVERY", 0.05)
    with steered(rule()) as gauge:
        one = evaluator()
        task = asyncio.create_task(one.run())
        await eventually(lambda: gauge.reads >= 3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await one.close()
