"""Migrations of one database by hosts that start at once."""

import logging
import threading

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from registry.management import migrating
from registry.management.migrating import migrating_alone
from tests.factories import in_thread
from tests.waiting import eventually


async def test_the_second_host_waits_for_the_first_and_says_so(caplog, monkeypatch):
    monkeypatch.setattr(migrating, "LOOK_EVERY", 0.01)
    caplog.set_level(logging.INFO, migrating.__name__)
    done = []

    with migrating_alone(connection):
        second = threading.Thread(target=lambda: (call_command("migrate", verbosity=0), done.append("migrated")))
        second.start()
        await eventually(lambda: "waiting for the migrations of another host" in caplog.text)
        assert done == []
    await eventually(lambda: done)
    second.join()

    [line] = [one for one in caplog.records if "waiting" in one.message]
    assert vars(line)["holder"].startswith("registry migrates on ")


async def test_a_host_gives_up_waiting_after_the_limit(monkeypatch):
    monkeypatch.setattr(migrating, "MIGRATION_LIMIT", 0.0)

    def waits() -> None:
        with migrating_alone(connection):
            raise AssertionError("it has the lock")

    with migrating_alone(connection):
        with pytest.raises(CommandError, match=r"another host has been migrating the database .* registry migrates on"):
            await in_thread(waits)


async def test_the_plan_of_migrations_is_shown_while_another_host_migrates(capsys):
    with migrating_alone(connection):
        await in_thread(lambda: call_command("migrate", plan=True))

    assert "No planned migration operations" in capsys.readouterr().out
