"""Dry runs of routing: the routes of past payments under edited rules, and activation of exactly those rules."""

import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from payments.models import Attempt, Payment, Processor
from payments.routing import activate, dry_run
from payments.routing.accounts import Refused
from payments.routing.activate import RulesChanged
from payments.routing.dry_run import WAITS
from registry.models import AuditEntry
from tests.factories import in_thread, make_processor, make_tenant

START = datetime(2026, 1, 15, 12, tzinfo=UTC)


@pytest.fixture
async def cheap(tenant):
    return await in_thread(make_processor, tenant, "default", fee="0.05")


@pytest.fixture
async def dear(tenant):
    return await in_thread(make_processor, tenant, "fallback", fee="0.15")


def sent(tenant, processor, count=1, *, at=0.0, every=1.0, outcome="booked", latency=20, code="", **fields):
    """`count` payments whose first send was at `processor`, `every` seconds after one another from START + `at`."""
    for number in range(count):
        moment = START + timedelta(seconds=at + number * every)
        payment = Payment.objects.create(
            tenant=tenant,
            **{"correlation_id": uuid4(), "fingerprint": b"", "amount": 1000, "currency": "BRL", "attempt": 1}
            | {"created_at": moment, **fields},
        )
        try_at(tenant, processor, payment, 1, moment, outcome, latency, code)


def try_at(tenant, processor, payment, number, moment, outcome, latency, code="", decided=None):
    Attempt.objects.create(
        tenant=tenant, payment=payment, number=number, processor=processor, reason="", outcome=outcome, code=code,
        requested_at=decided or moment, started_at=moment, latency_ms=latency,
    )  # fmt: skip


async def test_without_edits_nothing_moves(tenant, cheap, dear):
    await in_thread(sent, tenant, cheap, 10)

    found = await dry_run.run(tenant_id=tenant.pk, edits={})

    assert (found.payments, found.moved, found.examples) == (10, 0, [])
    assert found.actual.counts == found.before.counts == found.after.counts == {"default": 10}


async def test_a_lower_fee_elsewhere_moves_the_payments_and_their_fees(tenant, cheap, dear):
    await in_thread(sent, tenant, cheap, 10)

    found = await dry_run.run(tenant_id=tenant.pk, edits={"fallback.fee": "0.03"})

    assert (found.before.counts, found.after.counts) == ({"default": 10}, {"fallback": 10})
    assert (found.before.fees, found.after.fees) == ({"BRL": 500}, {"BRL": 300})
    assert found.moved == 10


async def test_a_fee_that_the_processor_named_is_the_ledgers_until_it_is_edited(tenant, cheap, dear):
    """Of 10.00 at 5 %: it kept 0.31 and not 0.50."""
    await in_thread(sent, tenant, cheap, 2, status="succeeded", processor_id=cheap.pk, fee=31)
    await in_thread(sent, tenant, cheap, at=10)  # not booked yet

    found = await dry_run.run(tenant_id=tenant.pk, edits={"fallback.fee": "0.14"})
    edited = await dry_run.run(tenant_id=tenant.pk, edits={"default.fee": "0.06"})

    assert found.actual.fees == found.before.fees == found.after.fees == {"BRL": 31 + 31 + 50}
    assert (edited.before.fees, edited.after.fees) == ({"BRL": 112}, {"BRL": 180})


async def test_fees_are_counted_by_currency(tenant, cheap):
    await in_thread(sent, tenant, cheap, 2)
    await in_thread(sent, tenant, cheap, 1, amount=2000, currency="USD")

    found = await dry_run.run(tenant_id=tenant.pk, edits={"default.fee": "0.1"})

    assert (found.before.fees, found.after.fees) == ({"BRL": 100, "USD": 100}, {"BRL": 200, "USD": 200})


async def test_a_disabled_processor_gets_nothing_and_payments_without_another_wait(tenant, cheap):
    await in_thread(sent, tenant, cheap, 3)

    found = await dry_run.run(tenant_id=tenant.pk, edits={"default.enabled": "false"})

    assert (found.after.counts, found.after.success) == ({WAITS: 3}, None)
    assert {example.after for example in found.examples} == {WAITS}


async def test_payments_that_name_a_processor_stay_there(tenant, cheap, dear):
    await in_thread(sent, tenant, dear, 2, wanted_processor="fallback")

    found = await dry_run.run(tenant_id=tenant.pk, edits={"default.fee": "0"})

    assert found.after.counts == {"fallback": 2}


async def test_a_past_outage_is_an_outage_in_the_dry_run(tenant, cheap, dear):
    await in_thread(sent, tenant, cheap, 5, every=0.01, outcome="not_booked", code="http_500")
    await in_thread(sent, tenant, dear, 3, at=0.2, every=0.01)

    found = await dry_run.run(tenant_id=tenant.pk, edits={"fallback.fee": "0.16"})

    assert found.actual.counts == found.after.counts == {"default": 5, "fallback": 3}


async def test_past_slow_responses_move_payments_in_the_dry_run(tenant, cheap, dear):
    await in_thread(sent, tenant, cheap, 20, latency=1500, every=2)
    await in_thread(sent, tenant, dear, 1, at=60)

    found = await dry_run.run(tenant_id=tenant.pk, edits={})

    assert found.after.counts["fallback"] > 0
    assert (await dry_run.run(tenant_id=tenant.pk, edits={"fallback.enabled": "false"})).after.counts == {"default": 21}


async def test_a_response_is_considered_only_once_it_arrived(tenant, cheap, dear):
    await in_thread(sent, tenant, cheap, 5, every=0.01, outcome="not_booked", latency=5000)
    await in_thread(sent, tenant, cheap, 1, at=1)

    found = await dry_run.run(tenant_id=tenant.pk, edits={})

    assert found.after.counts == {"default": 6}


async def test_a_payment_counts_once_however_often_it_was_tried(tenant, cheap, dear):
    def tried() -> None:
        sent(tenant, cheap, 1, outcome="not_booked")
        payment = Payment.objects.get()
        later = START + timedelta(seconds=1)
        try_at(tenant, dear, payment, 2, later, "unknown", 6000)
        try_at(tenant, dear, payment, 3, later + timedelta(seconds=7), "booked", 10, "looked_up", decided=later)

    await in_thread(tried)

    found = await dry_run.run(tenant_id=tenant.pk, edits={})

    assert (found.payments, found.actual.counts) == (1, {"default": 1})


async def test_the_expected_success_is_the_share_that_each_processor_booked(tenant, cheap, dear):
    await in_thread(sent, tenant, cheap, 6)
    await in_thread(sent, tenant, cheap, 2, at=10, outcome="declined")
    await in_thread(sent, tenant, cheap, 1, at=20, outcome="unknown")
    await in_thread(sent, tenant, dear, 2, at=30)

    found = await dry_run.run(tenant_id=tenant.pk, edits={"fallback.fee": "0.01"})

    assert found.rates == {"default": 0.75, "fallback": 1.0}
    assert (found.before.success, found.after.success) == (0.75, 1.0)


async def test_an_unused_processor_is_assumed_to_be_as_good_as_the_others(tenant, cheap, dear):
    await in_thread(sent, tenant, cheap, 3)
    await in_thread(sent, tenant, cheap, 1, at=10, outcome="declined")

    found = await dry_run.run(tenant_id=tenant.pk, edits={"fallback.fee": "0.01"})

    assert found.after.success == 0.75


async def test_only_the_latest_payments_of_the_tenant_count(tenant, cheap):
    other = await in_thread(make_tenant)
    theirs = await in_thread(make_processor, other)
    await in_thread(sent, other, theirs, 3)
    await in_thread(sent, tenant, cheap, 5)

    assert (await dry_run.run(tenant_id=tenant.pk, edits={}, last=2)).payments == 2
    assert (await dry_run.run(tenant_id=tenant.pk, edits={}, last=100)).payments == 5


async def test_edited_options_of_a_sandbox_apply_in_the_dry_run(tenant, cheap, dear):
    await in_thread(sent, tenant, cheap, 4)

    slower = await dry_run.run(tenant_id=tenant.pk, edits={"default.options.delay": "900"})
    failing = await dry_run.run(tenant_id=tenant.pk, edits={"default.options.failing": "true"})

    assert slower.after.counts == failing.after.counts == {"fallback": 4}


async def test_a_dry_run_writes_nothing(tenant, cheap):
    await in_thread(sent, tenant, cheap, 2)
    before = await in_thread(lambda: (list(Processor.objects.values()), list(Payment.objects.values())))

    await dry_run.run(tenant_id=tenant.pk, edits={"default.fee": "0.5"})

    assert await in_thread(lambda: (list(Processor.objects.values()), list(Payment.objects.values()))) == before
    assert not await in_thread(AuditEntry.objects.exists)


async def test_the_same_dry_run_twice_has_the_same_result(tenant, cheap, dear):
    await in_thread(sent, tenant, cheap, 6, every=0.05, outcome="not_booked")
    await in_thread(sent, tenant, dear, 20, at=0.4, every=0.3)

    first, second = [await dry_run.run(tenant_id=tenant.pk, edits={"default.fee": "0.02"}) for _ in range(2)]

    assert first == second


@pytest.mark.parametrize(
    ("edits", "says"),
    [
        ({"gold.fee": "0.1"}, "no processor 'gold'"),
        ({"default.fee": "1"}, "a share of the amount"),
        ({"default.fee": "x"}, "a share of the amount"),
        ({"default.enabled": "perhaps"}, "true or false"),
        ({"default.url": "http://x"}, "not a setting of routing"),
        ({"default.options.secretKey": '"sk"'}, "not a setting of routing"),
        ({"default.options.delay": "-1"}, "is a number"),
        ({"default.options.delay": "true"}, "is a number"),
        ({"default.options.failing": "1"}, "is true or false"),
    ],
)
async def test_an_invalid_edit_is_refused(tenant, cheap, edits, says):
    with pytest.raises(Refused, match=says):
        await dry_run.run(tenant_id=tenant.pk, edits=edits)


@pytest.mark.parametrize("last", [0, dry_run.MOST + 1])
async def test_a_dry_run_of_too_many_is_refused(tenant, last):
    with pytest.raises(Refused, match="1 to"):
        await dry_run.run(tenant_id=tenant.pk, edits={}, last=last)


# -- Activation -----------------------------------------------------------------------------------------------


async def test_the_activated_rules_are_those_of_the_result(tenant, cheap, dear):
    await in_thread(sent, tenant, cheap, 3)
    edits = {"default.fee": "0.12", "fallback.fee": "0.04", "default.enabled": "false"}
    found = await dry_run.run(tenant_id=tenant.pk, edits=edits)

    changed = await put_into_force(tenant, found)

    again = await dry_run.run(tenant_id=tenant.pk, edits={})
    assert changed == ["default", "fallback"]
    assert (again.before, again.moved) == (found.after, 0)
    entry = await in_thread(AuditEntry.objects.get)
    assert (entry.action, entry.rows, entry.reason, entry.tenant_id) == ("routing.activate", 2, "cheaper", tenant.pk)
    assert entry.detail == {
        "default": {"fee": ["0.050000", "0.120000"], "enabled": [True, False]},
        "fallback": {"fee": ["0.150000", "0.040000"]},
    }


async def put_into_force(tenant, found):
    return await activate.activate(
        tenant_id=tenant.pk, edits=found.edits, rules=found.rules, actor="olga", reason="cheaper"
    )


@pytest.mark.parametrize("change", ["fee", "enabled", "options", "another"])
async def test_rules_that_changed_after_the_dry_run_are_not_overwritten(tenant, cheap, dear, change):
    found = await dry_run.run(tenant_id=tenant.pk, edits={"default.fee": "0.01"})

    def somebody_else_is_faster() -> None:
        mine = Processor.objects.filter(pk=dear.pk)
        {
            "fee": lambda: mine.update(fee="0.2"),
            "enabled": lambda: mine.update(enabled=False),
            "options": lambda: mine.update(options={"delay": 3}),
            "another": lambda: make_processor(tenant, "gold"),
        }[change]()

    await in_thread(somebody_else_is_faster)

    with pytest.raises(RulesChanged):
        await put_into_force(tenant, found)
    assert str((await in_thread(Processor.objects.get, pk=cheap.pk)).fee) == "0.050000"
    assert not await in_thread(AuditEntry.objects.exists)


async def test_a_dry_run_is_activated_once(tenant, cheap):
    found = await dry_run.run(tenant_id=tenant.pk, edits={"default.fee": "0.01"})
    await put_into_force(tenant, found)

    with pytest.raises(RulesChanged):
        await put_into_force(tenant, found)


async def test_other_options_stay_as_they_are(tenant, cheap):
    await in_thread(lambda: Processor.objects.filter(pk=cheap.pk).update(options={"note": "x", "delay": 5}))
    found = await dry_run.run(tenant_id=tenant.pk, edits={"default.options.delay": "7"})

    await put_into_force(tenant, found)

    assert (await in_thread(Processor.objects.get)).options == {"note": "x", "delay": 7}


# -- The command ------------------------------------------------------------------------------------------------


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("routing", "rehearse", *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def acme():
    acme = make_tenant("acme")
    cheap = make_processor(acme, "default", fee="0.05")
    make_processor(acme, "fallback", fee="0.15")
    sent(acme, cheap, 3)
    return acme


def test_the_command_compares(acme):
    said = json.loads(run("acme", "--set", "fallback.fee=0.03", "--json"))

    assert said["before"] == {"payments": {"default": 3}, "waiting": 0, "fees": {"BRL": "1.50"}, "expectedSuccess": 1.0}
    assert said["after"]["payments"] == {"fallback": 3}
    assert (said["moved"], len(said["examples"]), said["activated"]) == (3, 3, [])
    assert "3 would go elsewhere" in run("acme", "--set", "fallback.fee=0.03")


def test_the_command_activates_with_a_reason_only(acme):
    with pytest.raises(CommandError, match="wants a --reason"):
        run("acme", "--set", "fallback.fee=0.03", "--activate")

    assert "In force now: fallback." in run("acme", "--set", "fallback.fee=0.03", "--activate", "--reason", "cheaper")
    assert str(Processor.objects.get(name="fallback").fee) == "0.030000"


def test_the_command_refuses_an_invalid_edit(acme):
    with pytest.raises(CommandError, match="--set wants"):
        run("acme", "--set", "cheaper")
