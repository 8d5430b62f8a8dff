"""The command `check_books`, and the nightly check: in portions, with metrics and an item for the operators' home."""

import json
from datetime import UTC, datetime
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from registry.data import database
from registry.data.chores import CHORES
from registry.models import BookCheck
from registry.operators import attention, book_checks
from registry.operators.book_checks import last_begin
from registry.tenants import audit, books
from tests.attending import named
from tests.conftest import Api
from tests.factories import in_thread, make_processor, make_tenant
from tests.settling import accept, settle_all


@pytest.fixture
async def shop(tenant):
    """A tenant with three booked payments and an audit entry."""
    await in_thread(make_processor, tenant, "default", fee="0.05")
    await accept(tenant, 3)
    await settle_all(tenant)
    async with database.own_connection():
        await audit.record(actor="owner", action="key.create", target="key", tenant_id=tenant.pk)
    return tenant


async def damage() -> None:
    await database.fetch("UPDATE payments_rollup SET fee = fee + 1 WHERE width = 1")


# -- The command -----------------------------------------------------------------------------------------------------


async def command(*arguments: str) -> tuple[int, str]:
    """Exit code and output."""
    out = StringIO()

    def run() -> int:
        try:
            call_command("check_books", *arguments, stdout=out)
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return await in_thread(run), out.getvalue()


async def test_the_command_says_what_it_compared(shop):
    code, text = await command(shop.slug)

    assert code == 0
    assert text.startswith(f"No difference, {shop.slug}, in ")
    assert "payments 3" in text
    assert "ledger lines 9" in text


async def test_the_command_names_each_difference_on_a_line_and_exits_with_1(shop):
    await damage()

    code, text = await command()

    [line, verdict] = text.splitlines()
    assert code == 1
    assert line.startswith(f"{shop.slug}: roll-up of the second ")
    assert line.endswith(
        "processor default: 3 payments, 59.70 BRL, fees 3.01 BRL; "
        "it should be 3 payments, 59.70 BRL, fees 3.00 BRL, as its payments add up to."
    )
    assert verdict.startswith("1 difference, all tenants, in ")


async def test_the_command_prints_json_for_programs(shop):
    await damage()

    code, text = await command("--json")

    found = json.loads(text)
    assert (code, found["sound"], found["total"], found["rows"]["payments"]) == (1, False, 1, 3)
    [difference] = found["differences"]
    assert (difference["tenant"], difference["part"], difference["kind"]) == (shop.slug, "roll-ups", "rollup.second")
    assert difference["stored"].endswith("fees 3.01 BRL")
    assert set(difference) == {"tenant", "part", "kind", "subject", "stored", "expected"}


async def test_only_the_named_tenant_is_checked(shop):
    await damage()
    other = await in_thread(make_tenant)

    assert (await command(other.slug))[0] == 0


async def test_an_unknown_tenant_is_neither_sound_nor_different():
    with pytest.raises(CommandError, match="there is no tenant 'nobody'") as refused:
        await command("nobody")

    assert refused.value.returncode == 2


async def test_the_services_own_audit_trail_is_checked_with_all_tenants(shop):
    await audit.record(actor="operator", action="switch.change", target="inline.payment")
    async with database.transaction() as conn:
        await conn.execute("SET LOCAL session_replication_role = replica")
        await conn.execute("UPDATE registry_auditentry SET reason = 'another' WHERE tenant_id IS NULL")

    code, text = await command()

    assert code == 1
    assert text.startswith("–: audit entry ")


# -- Every night -----------------------------------------------------------------------------------------------------


async def checks() -> list[BookCheck]:
    return [one async for one in BookCheck.async_objects.order_by("id")]


async def test_the_books_are_checked_once_a_night(shop):
    for _ in range(2):
        await CHORES["check-books"].run()
    before = await checks()
    await database.fetch("UPDATE registry_bookcheck SET started_at = started_at - interval '1 day'")
    await CHORES["check-books"].run()

    assert [one.differences for one in before] == [0]
    assert before[0].rows["payments"] == 3
    assert len(await checks()) == 2


@pytest.mark.parametrize(
    ("now", "begin"),
    [("2026-07-15T02:59:00Z", "2026-07-14T03:00:00Z"), ("2026-07-15T03:00:00Z", "2026-07-15T03:00:00Z")],
)
def test_a_check_is_due_at_three_in_the_night(now: str, begin: str):
    assert last_begin(datetime.fromisoformat(now)) == datetime.fromisoformat(begin).astimezone(UTC)


async def test_a_check_is_done_in_portions_and_counts_every_row_once(shop, monkeypatch):
    whole = await books.check(await books.owners(), lambda place, found: None)
    monkeypatch.setattr(book_checks, "WITHIN", 0.0)  # one slice each
    monkeypatch.setattr(books, "SLICE", 2)
    await damage()
    portions = 0
    while not portions or (await checks())[0].finished_at is None:
        await CHORES["check-books"].run()
        portions += 1

    [check] = await checks()
    assert portions > 10
    assert {part: rows for part, rows in check.rows.items() if rows} == {part: n for part, n in whole.rows.items() if n}
    assert (check.differences, [one["kind"] for one in check.named]) == (1, ["rollup.second"])


async def test_a_check_that_another_process_is_at_is_left_to_it(shop):
    await database.fetch(
        """INSERT INTO registry_bookcheck (started_at, leased_until, rows, differences, named, seconds)
        VALUES (now(), now() + interval '1 minute', '{}', 0, '[]', 0)"""
    )

    await CHORES["check-books"].run()
    [leased] = await checks()
    await database.fetch("UPDATE registry_bookcheck SET leased_until = now() - interval '1 second'")
    await CHORES["check-books"].run()
    [taken_over] = await checks()

    assert leased.finished_at is None
    assert taken_over.finished_at is not None


async def metrics(api: Api) -> dict[str, float]:
    async with api.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    return {name: float(value) for name, value in (line.split() for line in lines if line.startswith("registry_book_"))}


async def test_the_result_is_in_the_metrics(api: Api, shop):
    before = await metrics(api)
    await damage()
    await CHORES["check-books"].run()
    found = await metrics(api)

    assert before == {}
    assert found["registry_book_differences"] == 1
    assert abs(found["registry_book_check_timestamp_seconds"] - datetime.now(UTC).timestamp()) < 600
    assert 0 < found["registry_book_check_seconds"] < 600


async def test_differences_need_the_operators_attention_and_no_tenants(shop):
    [before] = await named("books.check")
    await damage()
    await CHORES["check-books"].run()

    [item] = await named("books.check")
    assert (before.known, before.severity) == (False, attention.Severity.NOTICE)
    assert (item.severity, item.count) == (attention.Severity.CRITICAL, 1)
    assert item.sentence.startswith(
        f"The books differ from their events and ledger lines in 1 place, first {shop.slug}: roll-up of the second"
    )
    assert await named("books.check", [shop.pk]) == []


async def test_a_sound_check_is_well_and_one_that_was_not_repeated_needs_attention(shop):
    await CHORES["check-books"].run()
    [sound] = await named("books.check")
    await database.fetch("UPDATE registry_bookcheck SET finished_at = now() - interval '2 days'")
    [late] = await named("books.check")

    assert (sound.severity, late.severity) == (attention.Severity.WELL, attention.Severity.WARNING)
    assert sound.sentence.startswith("The books: the last nightly check found no difference (")
