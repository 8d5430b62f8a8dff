"""The console's list of discrepancies: both sides, filters, actions, and whose page it is."""

import re
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from payments.models import Difference, Payment, Processor
from payments.states import SUCCEEDED
from registry.models import AuditEntry, Tenant
from registry.operators import attention
from tests.factories import in_thread, make_payment, make_person, make_processor, make_tenant
from tests.payments.comparing import NOON, book_there
from tests.payments.test_reversal_lists import person, rows
from tests.queueing.test_console import As, visiting  # noqa: F401 - a fixture

LIST = "/discrepancies/list"
Kind = Difference.Kind


@pytest.fixture
async def processor(tenant: Tenant) -> Processor:
    return await in_thread(make_processor, tenant, "default")


@pytest.fixture
async def payment(tenant: Tenant, processor: Processor) -> Payment:
    return await in_thread(lambda: make_payment(tenant, status=SUCCEEDED, processor=processor))


async def difference(processor: Processor, payment: Payment | None = None, **fields: Any) -> Difference:
    correlation = payment.correlation_id if payment else uuid4()
    ours = (
        {"payment_id": payment.pk, "our_status": "succeeded", "our_amount": 1990, "our_currency": "BRL"}
        if payment
        else {}
    )
    given = {"kind": Kind.AMOUNT, "their_amount": 2500, "their_currency": "BRL", "requested_at": NOON}
    shared = {
        "tenant_id": processor.tenant_id,
        "processor": processor,
        "key": str(correlation),
        "correlation_id": correlation,
    }
    return await in_thread(lambda: Difference.objects.create(**{**shared, **ours, **given, **fields}))


def shown(text: str) -> list[int]:
    return [int(number) for number in re.findall(r'id="discrepancy-(\d+)"', text)]


async def test_a_discrepancy_is_shown_with_both_sides_and_what_it_means(visiting: As, tenant, processor, payment):  # noqa: F811
    await difference(processor, payment)
    other = await difference(processor, kind=Kind.MISSING_HERE, reference="pi_7")
    async with visiting(await person(tenant, "viewer")) as visit:
        status, text = await visit.get(LIST)

    missing, amount = rows(text)
    assert status == 200
    assert f"/payments/{payment.correlation_id}/live?tenant={tenant.slug}" in text
    assert f"/payments/{other.correlation_id}/live" not in text
    assert "≠ amount R$19.90 succeeded R$25.00 default The payer was charged what the processor booked." in amount
    assert "◐ missing here no booking R$25.00 default The payer was charged; it is not in your balance." in missing
    assert "Re-check" not in text


STATES: dict[str, set[str]] = {
    "": {"amount", "missing", "closed"}, "open": {"amount", "missing"}, "missing_here": {"missing"}, "closed": {"closed"},
    "booked": set(),
}  # fmt: skip


@pytest.mark.parametrize("state", STATES)
async def test_discrepancies_are_filtered_by_state_and_kind(visiting: As, tenant, processor, payment, state):  # noqa: F811
    made = {
        "amount": await difference(processor, payment),
        "missing": await difference(processor, kind=Kind.MISSING_HERE),
        "closed": await difference(processor, resolution="closed", resolved_at=timezone.now(), note="a test of theirs"),
    }
    async with visiting(await person(tenant)) as visit:
        _, text = await visit.get(LIST, status=state)

    assert set(shown(text)) == {made[name].pk for name in STATES[state]}


async def test_a_discrepancy_is_found_by_id_reference_and_words_of_its_note(visiting: As, tenant, processor, payment):  # noqa: F811
    one = await difference(processor, payment)
    two = await difference(processor, kind=Kind.MISSING_HERE, reference="pi_7", resolution="closed", note="their test")
    async with visiting(await person(tenant)) as visit:
        found = {
            text: shown((await visit.get(LIST, q=text))[1])
            for text in (str(payment.correlation_id)[:8], "pi_7", "their")
        }

    assert found == {str(payment.correlation_id)[:8]: [one.pk], "pi_7": [two.pk], "their": [two.pk]}


async def test_older_ones_are_on_the_next_page(visiting: As, tenant, processor):  # noqa: F811
    made = [(await difference(processor)).pk for _ in range(27)]
    async with visiting(await person(tenant)) as visit:
        _, newest = await visit.get(LIST)
        cursor = re.search(r"cursor=(\d+)", newest)[1]
        _, older = await visit.get(LIST, cursor=cursor)

    assert shown(newest) + shown(older) == made[::-1]


async def test_an_operator_closes_one_with_a_reason(visiting: As, tenant, processor, payment):  # noqa: F811
    one = await difference(processor, payment)
    async with visiting(await person(tenant)) as visit:
        _, text = await visit.get(f"/discrepancies/{one.pk}/act", do="close")
        assert f"amount: {payment.correlation_id}" in text
        await visit.post(f"/discrepancies/{one.pk}/act", do="close", seen="1", reason="the bank corrects it")

    after = await in_thread(lambda: Difference.objects.get(pk=one.pk))
    entry = await in_thread(lambda: AuditEntry.objects.get(action="difference.close"))
    assert (after.resolution, after.note) == ("closed", "the bank corrects it")
    assert (entry.tenant_id, entry.reason) == (tenant.pk, "the bank corrects it")


async def test_what_only_the_processor_has_is_booked_from_the_list(visiting: As, tenant, processor):  # noqa: F811
    correlation = await in_thread(book_there, processor, amount=2500)
    booking = {
        "their_amount": 2500,
        "reference": str(correlation),
        "key": str(correlation),
        "correlation_id": correlation,
    }
    one = await difference(processor, kind=Kind.MISSING_HERE, **booking)
    async with visiting(await person(tenant)) as visit:
        _, text = await visit.get(LIST)
        assert f"/discrepancies/{one.pk}/act?tenant={tenant.slug}&do=book" in text
        _, text = await visit.get(f"/discrepancies/{one.pk}/act", do="book")

    assert "becomes a payment of its own" in text


@pytest.mark.parametrize(("role", "verb"), [("viewer", "close"), ("operator", "delete"), ("operator", "")])
async def test_others_and_other_verbs_are_not_found(visiting: As, tenant, processor, role: str, verb: str):  # noqa: F811
    one = await difference(processor)
    async with visiting(await person(tenant, role)) as visit:
        status, _ = await visit.get(f"/discrepancies/{one.pk}/act", do=verb)

    assert status == 404


async def test_a_discrepancy_of_another_tenant_is_neither_shown_nor_changed(visiting: As, tenant, processor):  # noqa: F811
    one = await difference(processor)
    other = await in_thread(make_tenant)
    async with visiting(await in_thread(lambda: make_person(tenant=other))) as visit:
        _, text = await visit.get(LIST)
        status, _ = await visit.get(f"/discrepancies/{one.pk}/act", do="close")

    assert (shown(text), status) == ([], 404)


async def test_what_needs_attention_leads_to_the_open_ones(visiting: As, tenant, processor, payment):  # noqa: F811
    await difference(processor, payment)
    [item] = [one for one in await attention.items([tenant.pk]) if one.name == "discrepancies"]
    async with visiting(await person(tenant)) as visit:
        status, text = await visit.get(item.page)
        _, of_payment = await visit.get(f"/payments/{payment.correlation_id}/live")

    assert (status, len(shown(text))) == (200, 1)
    assert f"/discrepancies/list?tenant={tenant.slug}&amp;status=open" in of_payment
