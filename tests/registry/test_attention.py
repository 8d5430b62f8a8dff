"""What needs attention: sources of every app by name, their limits, their scope, and the runbook."""

import asyncio
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.test import Client

from payments.states import FAILED
from registry.operators import attention, database_attention, runbook
from registry.operators.alerts import rules
from registry.operators.attention import COUNTED, Item, Severity, counted
from tests.attending import named
from tests.conftest import eventually
from tests.factories import in_thread, make_dead_letter, make_payment, make_person, make_tenant

RUNBOOK = Path(__file__).parents[2] / "docs" / "operators" / "runbook.md"
SERVICE = {
    "workers",
    "chores",
    "audit.proof",
    "ledger.proof",
    "rollups.proof",
    "books.check",
    "disk",
    "spill.waiting",
    "spill.set_aside",
}


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """A busy machine takes longer than the product waits."""
    monkeypatch.setattr(attention, "WITHIN", 30.0)


# -- The registry ----------------------------------------------------------------------------------------------


def test_every_source_and_rule_has_a_section_in_the_runbook_that_says_what_to_check_and_to_do_and_how_it_resolves():
    sections = runbook.sections()

    assert set(sections) == {*attention.names(), *(rule.runbook for rule in rules.rules())}
    assert [one.name for one in sections.values() if not (one.means and one.check and one.do and one.resolves)] == []
    assert all(one.line.endswith(".") for one in sections.values())
    assert re.findall(r"^## (.+)$", RUNBOOK.read_text(), re.M) == list(sections)


async def test_a_source_that_fails_is_unknown_with_the_reason_and_the_others_are_read(monkeypatch):
    async def broken(tenant_ids: Any) -> list[Item]:
        raise ZeroDivisionError

    monkeypatch.setitem(attention._sources, "disputes.due", broken)

    found = {item.name: item for item in await attention.report(None)}

    assert not found["disputes.due"].known
    assert found["disputes.due"].sentence == "disputes: due could not be read: ZeroDivisionError."
    assert found["workers"].known
    assert found["database.connections"].known


async def test_a_source_that_takes_longer_than_the_limit_is_unknown_and_delays_no_other(monkeypatch):
    async def slow(tenant_ids: Any) -> list[Item]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(attention, "WITHIN", 0.2)
    for name in ("disputes.due", "inbound.dead"):
        monkeypatch.setitem(attention._sources, name, slow)

    found = {item.name: item for item in await attention.report(None)}

    assert found["disputes.due"].sentence == "disputes: due could not be read: no answer within 0.2 s."
    assert not found["inbound.dead"].known


async def test_the_most_urgent_comes_first_then_the_oldest():
    items = await attention.report(None)

    assert [item.severity for item in items] == sorted(item.severity for item in items)
    assert all(item.severity is not Severity.WELL for item in await attention.items(None))


async def test_a_person_of_a_tenant_reads_nothing_of_other_tenants_or_of_the_service():
    acme, other = await in_thread(make_tenant, "acme"), await in_thread(make_tenant, "other")
    for tenant in (acme, other, other):
        await in_thread(lambda one: make_dead_letter(make_payment(one, status=FAILED)), tenant)

    everything, mine = await attention.report(None), await attention.report([acme.pk])

    assert [item.count for item in everything if item.name == "payments.dead_letters"] == [3]
    assert [item.count for item in mine if item.name == "payments.dead_letters"] == [1]
    assert {item.name for item in everything} >= SERVICE - {"spill.set_aside"}
    assert {item.name for item in mine} & SERVICE == set()
    assert not any(item.name.startswith("database") for item in mine)
    assert await attention.report([]) == []


def test_a_count_says_where_it_stops():
    assert counted(1, "payment") == "1 payment"
    assert counted(1284, "discrepancy", "discrepancies") == "1,284 discrepancies"
    assert counted(COUNTED, "payment") == "10,000 or more payments"


# -- The first page of the admin -------------------------------------------------------------------------------------


def home(person: Any, **headers: str) -> str:
    client = Client()
    client.force_login(person)
    answer = client.get("/admin/", headers=headers)
    assert answer.status_code == 200
    return answer.content.decode()


def test_the_first_page_shows_an_item_with_its_age_its_action_and_the_runbooks_line():
    make_dead_letter(make_payment(make_tenant("acme"), status=FAILED))

    shown = home(make_person("olga"))

    assert "1 payment ran out of attempts. 1 (19.90 BRL) failed: the payer was not charged." in shown
    assert "Replay them once the processor works again" in shown
    assert 'href="/admin/payments/deadletter/">Replay or close</a>' in shown
    assert 'href="/admin/runbook/#payments.dead_letters"' in shown
    assert re.search(r"Since <time[^>]*>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC</time> · \d s", shown)


def test_a_person_of_a_tenant_sees_the_items_of_their_tenants():
    acme, other = make_tenant("acme"), make_tenant("other")
    make_dead_letter(make_payment(acme, status=FAILED, amount=12_300))
    make_dead_letter(make_payment(other, status=FAILED, amount=45_600))

    shown = home(make_person(tenant=acme, role="viewer"))

    assert "123.00 BRL" in shown
    assert "456.00" not in shown
    assert "PostgreSQL" not in shown


def test_the_page_asks_for_the_part_that_changes_alone():
    part = home(make_person("olga"), **{"HX-Request": "true"})

    assert "Needs attention" in part
    assert "<html" not in part


# -- PostgreSQL and the disk ---------------------------------------------------------------------------------------


async def test_connections_are_counted_against_the_most_that_are_allowed(monkeypatch):
    [well] = await named("database.connections")
    assert (well.severity, well.count > 0) == (Severity.WELL, True)

    monkeypatch.setattr(database_attention, "CONNECTIONS_WARN", 0.0)
    [few] = await named("database.connections")
    monkeypatch.setattr(database_attention, "CONNECTIONS_FULL", 0.0)
    [none] = await named("database.connections")

    assert (few.severity, none.severity) == (Severity.WARNING, Severity.CRITICAL)
    assert "payments go to the spill" in none.sentence


async def test_the_oldest_snapshot_is_named_with_its_process(monkeypatch):
    monkeypatch.setattr(database_attention, "SNAPSHOT_WARN", timedelta())
    dsn = {
        k: v
        for k, v in connection.get_connection_params().items()
        if k in ("host", "port", "user", "password", "dbname")
    }
    async with await psycopg.AsyncConnection.connect(**dsn, application_name="nightly report") as other:
        await other.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        await other.execute("SELECT 1")

        async def item() -> Item | None:
            """Of this snapshot, once those end that the server itself held before, such as an autovacuum's."""
            [oldest] = await named("database.snapshot")
            return oldest if "nightly report, idle in transaction" in oldest.sentence else None

        found = await eventually(item)
        assert found.since is not None
        await other.rollback()


async def test_a_disk_without_room_is_said_before_it_is_full(monkeypatch):
    [well] = await named("disk")
    monkeypatch.setattr(database_attention, "ROOM_WARN", 1.1)
    [warned] = await named("disk")
    monkeypatch.setattr(database_attention, "ROOM_LOW", 1.1)
    [low] = await named("disk")

    assert [well.severity, warned.severity, low.severity] == [Severity.WELL, Severity.WARNING, Severity.CRITICAL]


async def test_replication_is_well_where_no_replica_is_connected():
    [item] = await named("database.replication")

    assert item.sentence == "PostgreSQL's replication: no replica is connected."
