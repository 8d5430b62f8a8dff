"""The ledger: three lines per settled payment in the settling commit, and a proof that finds every kind of damage."""

import asyncio
import json
from decimal import ROUND_HALF_UP, Decimal
from io import StringIO

import pytest
from django.core.management import call_command
from hypothesis import given
from hypothesis import strategies as st

from payments import money
from payments.books import ledger, purge
from payments.models import LedgerProof
from registry.data import database
from registry.tenants import books
from tests.conftest import at_work, eventually
from tests.factories import in_thread, make_processor, make_tenant
from tests.settling import accept, payments, settle_all, until_settled


async def lines(tenant) -> dict[int, dict[str, int]]:
    """Payment → account → amount."""
    sql = "SELECT payment_id, account, amount FROM payments_ledgerentry WHERE tenant_id = %s"
    found: dict[int, dict[str, int]] = {}
    for payment, account, amount in await database.fetch(sql, [tenant.pk]):
        assert account not in found.setdefault(payment, {}), "a line twice"
        found[payment][account] = amount
    return found


@pytest.fixture
async def sandbox(tenant):
    """A processor that keeps 5 % and has settled three payments."""
    await in_thread(make_processor, tenant, "default", fee="0.05")
    for amount in (1990, 10, 1):
        await accept(tenant, amount=amount)
    return await settle_all(tenant)


# -- What is written -----------------------------------------------------------------------------------------


async def test_a_settled_payment_is_three_lines_that_add_up_to_zero(tenant, sandbox):
    written = await lines(tenant)

    assert [written[row.id] for row in sandbox] == [
        {"processor": 1990, "fees": -100, "balance": -1890},
        {"processor": 10, "fees": -1, "balance": -9},
        {"processor": 1, "fees": 0, "balance": -1},
    ]
    assert {sum(of.values()) for of in written.values()} == {0}


async def test_the_balance_is_what_is_owed_to_the_tenant(tenant, sandbox):
    assert await ledger.balance(tenant_id=tenant.pk) == {"BRL": 1890 + 9 + 1}


async def test_payments_that_did_not_succeed_have_no_lines(tenant, worker, default):
    default.answers(402)

    await accept(tenant, 3)
    await eventually(lambda: _all_failed(tenant))

    assert await lines(tenant) == {}
    assert (await ledger.prove(tenant_id=tenant.pk)).sound


async def _all_failed(tenant) -> bool:
    return {row.status for row in await payments(tenant)} == {"failed"}


@given(st.integers(1, money.LARGEST), st.integers(0, 999_999))
def test_a_fee_is_rounded_half_up(units, parts_per_million):
    exactly = Decimal(units) * parts_per_million / 1_000_000

    fee = money.share(units, parts_per_million)

    assert fee == exactly.quantize(Decimal(1), rounding=ROUND_HALF_UP)
    assert 0 <= fee <= units


# -- All or nothing ------------------------------------------------------------------------------------------


async def test_a_settlement_killed_halfway_leaves_neither_state_nor_lines_and_is_repeated(tenant):
    await in_thread(make_processor, tenant)
    async with at_work():
        await accept(tenant, 2)
        await until_settled(tenant)
        async with database.transaction() as conn:
            # The roll-ups come late in the settling statement: it has written state, attempt and lines when it waits.
            await conn.execute("SELECT 1 FROM payments_rollup WHERE width = 3600 FOR UPDATE")
            await accept(tenant, 3)
            await eventually(lambda: _settling_waits())
            killed = await _kill_the_waiting(conn)
            await eventually(lambda: _settling_waits())  # it tries again at once
            states = [row.status for row in await payments(tenant)]
            halfway = await lines(tenant)
        settled = await until_settled(tenant)

    assert killed
    assert (states.count("succeeded"), len(halfway)) == (2, 2)
    assert (len(settled), len(await lines(tenant))) == (5, 5)
    assert (await ledger.prove(tenant_id=tenant.pk)).sound


WAITING = """FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
    AND query LIKE '%%outcome%%' AND pid <> pg_backend_pid()"""


async def _settling_waits() -> bool:
    return (await database.fetch(f"SELECT count(*) {WAITING}"))[0][0] > 0


async def _kill_the_waiting(conn) -> list:
    return await database.rows(conn, f"SELECT pg_terminate_backend(pid) {WAITING}")


async def test_a_purge_during_a_settlement_deletes_all_of_it(tenant):
    await in_thread(make_processor, tenant)
    async with at_work():
        await accept(tenant, 2)
        await until_settled(tenant)
        async with database.transaction() as conn:
            await conn.execute("SELECT 1 FROM payments_rollup WHERE width = 3600 FOR UPDATE")
            await accept(tenant, 3)
            await eventually(lambda: _settling_waits())
            removal = asyncio.create_task(purge.purge(tenant_id=tenant.pk))
            await eventually(lambda: _purge_waits())
        removed = await removal

    proof = await ledger.prove(tenant_id=tenant.pk)
    assert removed == (5, 0)
    assert proof == ledger.Proof(payments=0, lines=0, unbalanced=0, missing=0, strange=0, rollups_off=0)
    for table in ("attempt", "paymentevent", "ledgerentry", "rollup"):
        assert await database.fetch(f"SELECT * FROM payments_{table} WHERE tenant_id = %s", [tenant.pk]) == []


async def _purge_waits() -> bool:
    sql = """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
        AND query LIKE '%%DELETE FROM payments_payment %%' AND pid <> pg_backend_pid()"""
    return (await database.fetch(sql))[0][0] > 0


async def test_concurrent_workers_keep_the_sums(tenant):
    other = await in_thread(make_tenant)
    for one in (tenant, other):
        await in_thread(make_processor, one, "default", fee="0.033333")
    async with at_work(), at_work():
        await asyncio.gather(*(accept(one, 100, amount=amount) for one in (tenant, other) for amount in (1, 77, 1990)))
        for one in (tenant, other):
            await until_settled(one)

    proof = await ledger.prove()

    assert proof.sound
    assert (proof.payments, proof.lines) == (600, 1800)


# -- The proof ------------------------------------------------------------------------------------------------

DAMAGE = {
    "a missing line": (
        "DELETE FROM payments_ledgerentry WHERE payment_id = %(payment)s AND account = 'fees'",
        {"missing", "unbalanced", "strange"},
    ),
    "all lines missing": ("DELETE FROM payments_ledgerentry WHERE payment_id = %(payment)s", {"missing"}),
    "a line twice": (
        """INSERT INTO payments_ledgerentry (tenant_id, payment_id, processor_id, account, amount, currency, at)
        SELECT tenant_id, payment_id, processor_id, account, amount, currency, at FROM payments_ledgerentry
        WHERE payment_id = %(payment)s AND account = 'fees'""",
        {"missing", "unbalanced", "strange"},
    ),
    "an altered amount": (
        "UPDATE payments_ledgerentry SET amount = amount + 1 WHERE payment_id = %(payment)s AND account = 'balance'",
        {"unbalanced"},
    ),
    "altered amounts that still add up": (
        """UPDATE payments_ledgerentry SET amount = amount + CASE account WHEN 'fees' THEN 1 ELSE -1 END
        WHERE payment_id = %(payment)s AND account IN ('fees', 'balance')""",
        {"strange"},
    ),
    "lines of another currency": (
        "UPDATE payments_ledgerentry SET currency = 'USD' WHERE payment_id = %(payment)s",
        {"strange"},
    ),
    "lines of another processor": (
        "UPDATE payments_ledgerentry SET processor_id = processor_id + 1 WHERE payment_id = %(payment)s",
        {"strange"},
    ),
    "an account under a wrong name": (
        "UPDATE payments_ledgerentry SET account = 'fees' WHERE payment_id = %(payment)s AND account = 'balance'",
        {"strange"},
    ),
    "stray lines": (
        "UPDATE payments_payment SET status = 'failed' WHERE id = %(payment)s",
        {"strange", "rollups_off"},
    ),
    "lines of a payment that is not there": (
        "UPDATE payments_ledgerentry SET payment_id = 987654321 WHERE payment_id = %(payment)s",
        {"missing", "strange"},
    ),
    "an altered payment": (
        "UPDATE payments_payment SET amount = amount + 100 WHERE id = %(payment)s",
        {"strange", "rollups_off"},
    ),
    "a roll-up that is off": (
        "UPDATE payments_rollup SET amount = amount + 1 WHERE width = 1 AND tenant_id = %(tenant)s",
        {"rollups_off"},
    ),
    "a roll-up that is missing": (
        "DELETE FROM payments_rollup WHERE width = 3600 AND tenant_id = %(tenant)s",
        {"rollups_off"},
    ),
    "a stray roll-up": (
        """INSERT INTO payments_rollup (tenant_id, width, starts_at, processor_id, currency, payments, amount, fee)
        VALUES (%(tenant)s, 3600, '2020-01-01Z', 1, 'BRL', 1, 1, 0)""",
        {"rollups_off"},
    ),
}


async def test_a_ledger_without_damage_is_sound(tenant, sandbox):
    proof = await ledger.prove(tenant_id=tenant.pk)

    assert proof == ledger.Proof(payments=3, lines=9, unbalanced=0, missing=0, strange=0, rollups_off=0)
    assert proof.sound


@pytest.mark.parametrize("kind", DAMAGE)
async def test_the_proof_finds(tenant, sandbox, kind):
    sql, expected = DAMAGE[kind]
    await database.fetch(sql.replace("%%", "%"), {"payment": sandbox[0].id, "tenant": tenant.pk})

    proof = await ledger.prove(tenant_id=tenant.pk)

    assert not proof.sound
    assert {name for name in ("unbalanced", "missing", "strange", "rollups_off") if getattr(proof, name)} == expected


async def test_damage_of_one_tenant_is_not_reported_for_another(tenant, sandbox):
    other = await in_thread(make_tenant)
    await database.fetch("DELETE FROM payments_ledgerentry WHERE tenant_id = %s", [tenant.pk])

    assert (await ledger.prove(tenant_id=other.pk)).sound
    assert not (await ledger.prove()).sound


# -- The scheduled proof -----------------------------------------------------------------------------------------


async def proofs() -> list[LedgerProof]:
    async with database.own_connection():
        return [proof async for proof in LedgerProof.async_objects.order_by("id")]


async def prove_next() -> ledger.Proof:
    async with database.own_connection():
        return await ledger.prove_next()


@pytest.fixture
async def long_ago(tenant, sandbox):
    """Three payments, of yesterday, that a whole proof has seen an hour ago."""
    yesterday = "requested_at = requested_at - interval '20 hours'"
    await database.fetch(f"UPDATE payments_payment SET {yesterday} WHERE tenant_id = %s", [tenant.pk])
    await database.fetch("DELETE FROM payments_rollup WHERE tenant_id = %s", [tenant.pk])
    await database.fetch(
        """INSERT INTO payments_rollup (tenant_id, width, starts_at, processor_id, currency, payments, amount, fee)
        SELECT tenant_id, width, to_timestamp(floor(extract(epoch FROM requested_at) / width) * width), processor_id,
            currency, count(*), sum(amount), sum(fee)
        FROM payments_payment CROSS JOIN (VALUES (1), (3600)) AS w (width) WHERE tenant_id = %s GROUP BY 1, 2, 3, 4, 5""",
        [tenant.pk],
    )
    assert (await prove_next()).payments == 3
    await database.fetch("UPDATE payments_ledgerproof SET at = at - interval '1 hour'")
    return sandbox


async def test_the_first_scheduled_proof_covers_everything_and_is_stored(tenant, sandbox):
    proof = await prove_next()

    [kept] = await proofs()
    assert (kept.whole, kept.sound, kept.found["payments"], kept.found["lines"]) == (True, True, 3, 9)
    assert proof.payments == 3


async def test_the_next_proof_reads_only_new_lines(tenant, long_ago):
    await accept(tenant, 2)
    await settle_all(tenant)

    proof = await prove_next()

    assert proof == ledger.Proof(payments=2, lines=6, unbalanced=0, missing=0, strange=0, rollups_off=0)
    assert [kept.whole for kept in await proofs()] == [True, False]


@pytest.mark.parametrize("kind", sorted(DAMAGE.keys() - {"a stray roll-up"}))
async def test_a_proof_of_new_lines_finds_damage(tenant, long_ago, kind):
    sql, expected = DAMAGE[kind]
    await accept(tenant)
    newest = max(row.id for row in await settle_all(tenant))
    if expected == {"rollups_off"}:
        sql += " AND starts_at > now() - interval '3 hours'"
    await database.fetch(sql.replace("%%", "%"), {"payment": newest, "tenant": tenant.pk})

    proof = await prove_next()

    assert {name for name in ("unbalanced", "missing", "strange", "rollups_off") if getattr(proof, name)} == expected
    assert [kept.sound for kept in await proofs()] == [True, False]


async def test_new_lines_of_an_old_payment_are_found(tenant, long_ago):
    await database.fetch(DAMAGE["a line twice"][0], {"payment": long_ago[0].id})

    proof = await prove_next()

    assert (proof.payments, proof.unbalanced) == (1, 1)


async def test_after_a_failed_proof_the_same_lines_are_checked_again(tenant, long_ago):
    await database.fetch(DAMAGE["a line twice"][0], {"payment": long_ago[0].id})

    verdicts = [(await prove_next()).sound for _ in range(2)]

    assert verdicts == [False, False]


async def test_old_damage_is_left_to_the_nightly_check_of_the_books(tenant, long_ago):
    await database.fetch(DAMAGE["an altered amount"][0], {"payment": long_ago[0].id})

    proof = await prove_next()
    found = await books.check([tenant.pk], lambda place, found: None)

    assert proof.sound
    assert "ledger.amount" in {one.kind for _, one in found.named}


# -- The command ------------------------------------------------------------------------------------------------


async def verify(*arguments: str) -> tuple[int, str]:
    """Exit code and output of `manage.py ledger verify`."""
    out = StringIO()

    def run() -> int:
        try:
            call_command("ledger", "verify", *arguments, stdout=out)
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return await in_thread(run), out.getvalue()


async def test_the_command_reports_a_sound_ledger(tenant, sandbox):
    code, text = await verify()

    assert code == 0
    assert text.startswith("Sound: 3 succeeded payments, 9 lines")


async def test_the_command_exits_with_1_and_names_the_damage(tenant, sandbox):
    await database.fetch("DELETE FROM payments_ledgerentry WHERE payment_id = %s", [sandbox[0].id])

    code, text = await verify()
    json_code, printed = await verify("--tenant", tenant.slug, "--json")

    assert (code, json_code) == (1, 1)
    assert "NOT SOUND: of 3 succeeded payments 1 lack their three lines" in text
    assert json.loads(printed) == {
        "sound": False, "payments": 3, "lines": 6, "unbalanced": 0, "missing": 1, "strange": 0, "rollups_off": 0,
        "refunds_off": 0, "disputes_off": 0,
    }  # fmt: skip
