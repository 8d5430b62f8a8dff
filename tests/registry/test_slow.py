"""Warnings of slow statements, by name and without values, and of an event loop that stood still."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from registry.data import database, loop_watch, refusals
from registry.data.loop_watch import LoopWatch
from registry.telemetry import context, slow
from tests.conftest import eventually
from tests.registry.conftest import Lines

PROJECT = Path(__file__).parents[2]
NOWHERE = "postgres://nobody@127.0.0.1:1/none"
SLEEPS = "SELECT pg_sleep(%s), %s::text AS said"


@pytest.fixture(autouse=True)
def _nothing_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow, "_warned", {})


# -- Statements ------------------------------------------------------------------------------------------------


async def test_a_slow_statement_is_logged_by_its_name_without_its_values(settings, lines: Lines, monkeypatch):
    settings.LOG_SLOW_STATEMENT_MS = 100
    monkeypatch.setitem(refusals._names, SLEEPS, "tests.sleeps")

    await database.fetch(SLEEPS, [0.2, "a payer's name"])

    [line] = [one for one in lines.events if one["event"] == "slow statement"]
    assert (line["statement"], line["rows"], line["level"]) == ("tests.sleeps", 1, "warning")
    assert line["seconds"] >= 0.2
    assert "a payer's name" not in lines.text


async def test_a_statement_that_fails_after_a_long_time_is_logged_too(settings, lines: Lines):
    settings.LOG_SLOW_STATEMENT_MS = 100

    with pytest.raises(psycopg.errors.DivisionByZero):
        async with database.connection() as conn:
            await database.rows(conn, "SELECT pg_sleep(0.2), 1 / (count(*) - 1) FROM (SELECT pg_sleep(0.2)) AS t")

    [line] = [one for one in lines.events if one["event"] == "slow statement"]
    assert (line["rows"], line["seconds"] >= 0.2) == (None, True)


@pytest.mark.parametrize("limit", [0, 30_000])
async def test_a_statement_below_the_limit_and_none_without_one_is_logged(settings, lines: Lines, limit: int):
    settings.LOG_SLOW_STATEMENT_MS = limit

    await database.fetch(SLEEPS, [0.05, ""])

    assert [one for one in lines.events if one["event"] == "slow statement"] == []


def test_a_statement_that_is_slow_all_the_time_is_logged_once_per_interval(lines: Lines, monkeypatch):
    for _ in range(3):
        slow.statement("settle.settle", 2.0, rows=1)
    monkeypatch.setattr(slow, "QUIET", 0.0)
    slow.statement("settle.settle", 2.0, rows=1)
    slow.statement("intake.accept", 2.0, rows=1)

    assert [(one["statement"], one["lines_kept_quiet"]) for one in lines.events] == [
        ("settle.settle", 0),
        ("settle.settle", 2),
        ("intake.accept", 0),
    ]


def test_statements_made_of_a_template_have_names():
    from payments.settle.work import PAYMENTS, SETTLE

    assert refusals.name_of(SETTLE) == "settle.settle"
    assert refusals.name_of(PAYMENTS.take) == "work.take"


# -- The loop --------------------------------------------------------------------------------------------------


def stood_still(lines: Lines) -> list[dict]:
    return [one for one in lines.events if one["event"] == "the event loop stood still"]


async def blocks_the_loop(seconds: float) -> None:
    time.sleep(seconds)


async def test_a_task_that_blocks_the_loop_is_named_with_its_line_and_its_request(lines: Lines):
    watch = LoopWatch(0.1)
    try:
        await asyncio.sleep(0.1)
        context.REQUEST.set("a-request")
        await asyncio.create_task(blocks_the_loop(0.6))
        await eventually(lambda: stood_still(lines))
    finally:
        await watch.close()

    [line] = stood_still(lines)
    assert line["seconds"] >= 0.5
    assert line["processor_seconds"] < line["seconds"]
    assert (line["task"], line["request_id"]) == ("blocks_the_loop", "a-request")
    assert line["running"][-1].startswith("tests/registry/test_slow.py:")
    assert line["running"][-1].endswith(" blocks_the_loop")


async def test_a_loop_that_waits_is_not_one_that_stands_still(lines: Lines):
    watch = LoopWatch(2.0)  # longer than a busy machine keeps a process waiting
    try:
        await asyncio.sleep(0.8)
    finally:
        await watch.close()

    assert stood_still(lines) == []


def test_a_loop_that_stands_still_all_the_time_is_logged_once_per_interval_and_a_longer_time_too(
    lines: Lines, monkeypatch
):
    for seconds in (0.6, 0.7, 0.6, 5.0, 6.0):
        slow.loop(seconds, processor_seconds=0.1)
    monkeypatch.setattr(slow, "QUIET", 0.0)
    slow.loop(0.8, processor_seconds=0.1)

    assert [(one["seconds"], one["lines_kept_quiet"]) for one in stood_still(lines)] == [(0.6, 0), (5.0, 0), (0.8, 2)]


async def test_others_are_called_once_for_each_time_that_the_loop_stands_still_for_longer():
    watch, called = LoopWatch(0), []
    watch.when_still(0.5, called.append)
    try:
        for _ in range(2):
            await asyncio.create_task(blocks_the_loop(2.5), name="blocking")
            await asyncio.sleep(loop_watch.LONGEST_TICK + 0.1)  # the timer's next turn
    finally:
        await watch.close()

    # A process that gets no processor time stands still too, between its tasks.
    assert [task.get_name() for task in called if task] == ["blocking", "blocking"]


SERVES = """
import asyncio, time, django
django.setup()
from registry.data import loop_watch

async def main():
    watch = loop_watch.watches.get()
    called = []
    watch.when_still(1.0, called.append)
    print("ready", flush=True)
    turned_at = time.monotonic()
    while time.monotonic() - turned_at < 2.0:  # until it was suspended
        turned_at = time.monotonic()
        await asyncio.sleep(0.05)
    await asyncio.sleep(1.5)
    print(len(called), flush=True)

asyncio.run(main())
"""


def test_a_process_that_was_suspended_says_so_and_calls_nobody():
    """A machine that sleeps is no job that blocks: no worker is replaced for it."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVES], cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "registry.settings", "DATABASE_URL": NOWHERE, "REDIS_URL": "redis://127.0.0.1:1/0"},
    )  # fmt: skip
    assert process.stdout and process.stderr
    try:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        process.send_signal(signal.SIGSTOP)
        time.sleep(3.0)  # how long it is suspended
        process.send_signal(signal.SIGCONT)
        out, log = process.communicate(timeout=60)
    finally:
        process.kill()

    assert out == "0\n", log
    assert '"the event loop stood still"' in log and '"processor_seconds": 0.0' in log
