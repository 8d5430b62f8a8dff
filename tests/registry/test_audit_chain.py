"""The audit chain: valid entries verify, changes are detected, and the database refuses changes."""

import asyncio
import json
from io import StringIO

import psycopg
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import IntegrityError, connection, transaction
from django_async_backend.db.transaction import async_atomic

from registry.data import database
from registry.models import AuditEntry, AuditHead, AuditLink
from registry.tenants import audit, audit_chain
from registry.tenants.audit_chain import SERVICE, Noted, verify, verify_all
from tests.conftest import Api, make_key
from tests.factories import in_thread, make_tenant


def write(tenant, *targets: str) -> list[int]:
    """An entry per target, each in a transaction of its own; their ids."""
    for target in targets:
        audit.record_sync(actor="olga", action="thing.do", target=target, tenant_id=tenant and tenant.pk, reason="why")
    return list(AuditEntry.objects.filter(tenant=tenant).order_by("id").values_list("pk", flat=True))


def tamper(sql: str, *parameters: object) -> None:
    """As somebody may who rules over the database and switches its triggers off."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(sql, parameters)
        assert cursor.rowcount > 0


async def test_an_unchanged_chain_is_valid(tenant):
    await in_thread(write, tenant, "a", "b", "c")

    verdict = await verify(tenant.pk)

    assert (verdict.sound, verdict.entries, len(verdict.head)) == (True, 3, 64)


async def test_both_ways_to_write_add_to_one_chain(tenant):
    await in_thread(write, tenant, "a")
    async with database.own_connection(), async_atomic():
        await audit.record(actor="olga", action="thing.do", target="b", tenant_id=tenant.pk, detail={"é": [1.50, None]})

    assert (await verify(tenant.pk)).entries == 2


async def test_each_tenant_has_a_chain_and_the_service_one(tenant):
    other = await in_thread(make_tenant)
    await in_thread(write, tenant, "a", "b")
    await in_thread(write, other, "c")
    await in_thread(write, None, "d", "e", "f")

    found = {verdict.chain: verdict.entries for verdict in await verify_all()}

    assert found == {SERVICE: 3, tenant.pk: 2, other.pk: 1}


@pytest.mark.parametrize(
    "change",
    [
        "actor = 'mallory'",
        "action = 'thing.undo'",
        "target = 'x'",
        "rows = 2",
        "reason = ''",
        """detail = '{"a": 1}'""",
        "at = at + interval '1 microsecond'",
        "tenant_id = NULL",
    ],
)
async def test_a_changed_entry_is_detected(tenant, change):
    ids = await in_thread(write, tenant, "a", "b", "c")
    await in_thread(tamper, f"UPDATE registry_auditentry SET {change} WHERE id = %s", ids[1])

    verdict = await verify(tenant.pk)

    assert (verdict.sound, verdict.entries, verdict.position, verdict.entry) == (False, 1, 2, ids[1])
    assert "was changed" in verdict.fault


async def test_reordered_entries_are_detected(tenant):
    ids = await in_thread(write, tenant, "a", "b", "c")
    swap = """UPDATE registry_auditlink SET entry_id = CASE entry_id WHEN %s THEN -%s ELSE %s END WHERE entry_id IN (%s, %s)"""
    await in_thread(tamper, swap, ids[0], ids[1], ids[0], ids[0], ids[1])
    await in_thread(tamper, "UPDATE registry_auditlink SET entry_id = -entry_id WHERE entry_id < 0")

    verdict = await verify(tenant.pk)

    assert (verdict.sound, verdict.position) == (False, 1)


async def test_an_entry_removed_from_the_middle_is_detected(tenant):
    ids = await in_thread(write, tenant, "a", "b", "c")
    await in_thread(tamper, "DELETE FROM registry_auditentry WHERE id = %s", ids[1])

    verdict = await verify(tenant.pk)

    assert (verdict.position, verdict.entry, verdict.fault) == (2, ids[1], "the entry is gone")


async def test_an_entry_removed_with_its_link_is_detected(tenant):
    ids = await in_thread(write, tenant, "a", "b", "c")
    await in_thread(tamper, "DELETE FROM registry_auditentry WHERE id = %s", ids[1])
    await in_thread(tamper, "DELETE FROM registry_auditlink WHERE entry_id = %s", ids[1])

    verdict = await verify(tenant.pk)

    assert (verdict.entries, verdict.position, verdict.fault) == (1, 3, "links are missing before it")


async def test_a_truncated_chain_is_detected_by_its_head(tenant):
    ids = await in_thread(write, tenant, "a", "b", "c")
    await in_thread(tamper, "DELETE FROM registry_auditentry WHERE id = %s", ids[2])
    await in_thread(tamper, "DELETE FROM registry_auditlink WHERE entry_id = %s", ids[2])

    verdict = await verify(tenant.pk)

    assert (verdict.entries, verdict.position, verdict.fault) == (2, 3, "the latest entries are gone")


async def test_a_removed_chain_is_detected_by_its_head(tenant):
    await in_thread(write, tenant, "a")
    await in_thread(tamper, "DELETE FROM registry_auditentry WHERE tenant_id = %s", tenant.pk)
    await in_thread(tamper, "DELETE FROM registry_auditlink WHERE chain = %s", tenant.pk)

    assert [verdict.fault for verdict in await verify_all()] == ["the latest entries are gone"]


async def test_a_chain_truncated_with_its_head_is_detected_by_a_noted_head(tenant):
    ids = await in_thread(write, tenant, "a", "b")
    before = await verify(tenant.pk)
    noted = Noted(before.entries, before.head)
    await in_thread(tamper, "DELETE FROM registry_auditentry WHERE id = %s", ids[1])
    await in_thread(tamper, "DELETE FROM registry_auditlink WHERE entry_id = %s", ids[1])
    rewound = "UPDATE registry_audithead h SET position = 1, digest = l.digest FROM registry_auditlink l WHERE l.chain = h.chain AND l.position = 1 AND h.chain = %s"
    await in_thread(tamper, rewound, tenant.pk)

    assert (await verify(tenant.pk)).sound
    assert (await verify(tenant.pk, noted=noted)).fault == "the latest entries are gone"
    await in_thread(write, tenant, "another b")
    assert (await verify(tenant.pk, noted=noted)).fault == "it is not the entry that was noted"


async def test_an_entry_that_bypassed_the_trigger_is_detected(tenant):
    await in_thread(write, tenant, "a")
    slipped = "INSERT INTO registry_auditentry (tenant_id, actor, action, target, rows, reason, detail) VALUES (%s, 'm', 'x', 'y', 1, '', '{}')"
    await in_thread(tamper, slipped, tenant.pk)

    assert (await verify(tenant.pk)).fault == "an entry has no link"


async def test_an_entry_of_the_service_that_bypassed_the_trigger_is_detected():
    await in_thread(write, None, "a")
    slipped = "INSERT INTO registry_auditentry (actor, action, target, rows, reason, detail) VALUES ('m', 'x', 'y', 1, '', '{}')"
    await in_thread(tamper, slipped)

    assert (await verify(SERVICE)).fault == "an entry has no link"


async def test_a_chain_moved_to_another_tenant_is_detected_at_both(tenant):
    other = await in_thread(make_tenant)
    await in_thread(write, tenant, "a", "b")
    for table in ("registry_auditlink", "registry_audithead"):
        await in_thread(tamper, f"UPDATE {table} SET chain = %s WHERE chain = %s", other.pk, tenant.pk)

    faults = {verdict.chain: verdict.fault for verdict in await verify_all()}

    assert faults == {tenant.pk: "an entry has no link", other.pk: "the entry, or its place, was changed"}


@pytest.mark.parametrize("model", [AuditEntry, AuditLink, AuditHead])
async def test_the_database_refuses_to_change_the_trail(tenant, model):
    await in_thread(write, tenant, "a")
    table = model._meta.db_table
    change = {AuditEntry: "reason = ''", AuditLink: "position = 5", AuditHead: "position = 0"}[model]
    for statement in (f"UPDATE {table} SET {change}", f"DELETE FROM {table}", f"TRUNCATE {table}"):
        with pytest.raises(psycopg.errors.RestrictViolation, match="the audit trail is not changed"):
            await database.fetch(statement)

    assert (await verify(tenant.pk)).sound


async def test_a_tenant_with_a_trail_is_not_deleted(tenant):
    await in_thread(write, tenant, "a")

    with pytest.raises(IntegrityError):
        await in_thread(tenant.delete)


async def test_a_rolled_back_entry_leaves_no_gap(tenant):
    def half() -> None:
        write(tenant, "a")
        with pytest.raises(RuntimeError), transaction.atomic():
            write(tenant, "lost")
            raise RuntimeError
        with transaction.atomic():
            with pytest.raises(RuntimeError), transaction.atomic():
                write(tenant, "lost too")
                raise RuntimeError
            write(tenant, "b")

    await in_thread(half)

    verdict = await verify(tenant.pk)
    assert (verdict.sound, verdict.entries) == (True, 2)


async def test_fifty_concurrent_entries_are_all_in_the_chain(tenant):
    async def one(number: int) -> None:
        async with database.own_connection(), async_atomic():
            await audit.record(actor=f"olga {number}", action="thing.do", target="x", tenant_id=tenant.pk)

    await asyncio.gather(*(one(number) for number in range(50)))

    verdict = await verify(tenant.pk)
    assert (verdict.sound, verdict.entries) == (True, 50)


async def test_a_long_transaction_blocks_no_other_writer(tenant):
    async with database.own_connection(), async_atomic():
        await audit.record(actor="slow", action="thing.do", target="x", tenant_id=tenant.pk)
        async with asyncio.timeout(5):
            await in_thread(write, tenant, "quick")
            assert (await verify(tenant.pk)).entries == 1

    assert (await verify(tenant.pk)).entries == 2


async def test_writing_to_several_chains_in_any_order_does_not_deadlock(tenant):
    other = await in_thread(make_tenant)
    rounds = [(tenant, other), (other, tenant)] * 10

    async def one(pair) -> None:
        async with database.own_connection(), async_atomic():
            for owner in pair:
                await audit.record(actor="olga", action="thing.do", target="x", tenant_id=owner.pk)

    await asyncio.gather(*(one(pair) for pair in rounds))

    assert [(await verify(owner.pk)).entries for owner in (tenant, other)] == [20, 20]


async def test_a_chain_longer_than_a_page_is_followed_to_its_end(tenant, monkeypatch):
    monkeypatch.setattr(audit_chain, "PAGE", 2)
    await in_thread(write, tenant, "a", "b", "c", "d", "e")

    assert (await verify(tenant.pk)).entries == 5


# -- The command --------------------------------------------------------------------------------------------


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("audit", "verify", *arguments, stdout=out)
    return out.getvalue().strip()


def test_the_command_prints_the_head_that_can_be_noted():
    acme = make_tenant("acme")
    write(acme, "a", "b")

    [said] = json.loads(run("--json"))

    assert (said["tenant"], said["sound"], said["entries"]) == ("acme", True, 2)
    assert f"2:{said['head']}" in run()
    assert "Sound: acme" in run("--tenant", "acme", "--noted", f"2:{said['head']}")


def test_the_command_fails_where_a_chain_breaks_and_says_where():
    acme = make_tenant("acme")
    ids = write(acme, "a", "b")
    tamper("UPDATE registry_auditentry SET actor = 'mallory' WHERE id = %s", ids[1])
    out = StringIO()

    with pytest.raises(SystemExit) as end:
        call_command("audit", "verify", stdout=out)

    assert end.value.code == 1
    assert f"BROKEN: acme, at position 2, entry {ids[1]}" in out.getvalue()


@pytest.mark.parametrize("noted", ["2", "x:00", "2:00", "2:zz"])
def test_an_invalid_noted_head_is_refused(noted):
    make_tenant("acme")

    with pytest.raises(CommandError, match="wants POSITION:DIGEST"):
        run("--tenant", "acme", "--noted", noted)


# -- The API -----------------------------------------------------------------------------------------------------


async def test_a_tenant_sees_whether_its_own_chain_is_valid(server, tenant):
    other = await in_thread(make_tenant)
    await in_thread(write, other, "theirs", "theirs")
    await in_thread(write, tenant, "ours")

    async with Api(server, await make_key(tenant, "admin")) as api, api.get("/audit/verify") as response:
        said = await response.json()

    head = (await verify(tenant.pk)).head
    assert (response.status, said) == (200, {"sound": True, "entries": 1, "head": head})


async def test_the_api_reports_a_broken_chain_without_its_contents(server, tenant):
    ids = await in_thread(write, tenant, "a")
    await in_thread(tamper, "UPDATE registry_auditentry SET actor = 'mallory' WHERE id = %s", ids[0])

    async with Api(server, await make_key(tenant, "admin")) as api, api.get("/audit/verify") as response:
        said = await response.json()

    assert said == {
        "sound": False,
        "entries": 0,
        "head": "",
        "brokenAt": 1,
        "fault": "the entry, or its place, was changed",
    }


async def test_the_chain_is_shown_to_keys_of_the_admin_scope_only(api):
    async with api.get("/audit/verify") as response:
        assert response.status == 403
