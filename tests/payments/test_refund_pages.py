"""Refunds on the payment's page and in the admin."""

import re
from uuid import uuid4

import pytest
from django.urls import reverse
from django.utils import timezone

from payments.models import Dispute, Payment, Refund
from payments.states import FAILED, SUCCEEDED, RefundStatus
from registry.models import AuditEntry
from registry.tenants.links import token_of
from tests.factories import in_thread, make_payment, make_person, make_processor, make_tenant
from tests.queueing.test_console import As, visiting  # noqa: F401 - a fixture
from tests.registry.test_admin import WHY, as_person, choose, confirm, listing, page, said, text


@pytest.fixture
def acme():
    return make_tenant("acme")


@pytest.fixture
def operator():
    return as_person(make_person("olga"))


def paid(tenant) -> Payment:
    """A payment of 19.90 that the sandbox has booked."""
    return make_payment(tenant, status=SUCCEEDED, processor=make_processor(tenant, "sandbox"))


def make_refund(payment: Payment, **fields) -> Refund:
    refund = Refund.objects.create(
        tenant=payment.tenant,
        payment=payment,
        processor=payment.processor,
        **{
            "public_id": uuid4(),
            "number": Refund.objects.filter(payment=payment).count() + 1,
            "fingerprint": b"",
            "amount": 500,
            "currency": "BRL",
            **fields,
        },
    )
    Payment.objects.filter(pk=payment.pk).update(owed_back=refund.amount)
    return refund


def stopped(payment: Payment, status=RefundStatus.OWED) -> Refund:
    return make_refund(payment, status=status, stopped_at=payment.created_at, run_at="9999-12-31T00:00Z", attempt=25)


# -- The admin -------------------------------------------------------------------------------------------------


def refund_form(client, payment: Payment, **fields):
    address = reverse("admin:payments_payment_refund", args=[payment.pk])
    asked = client.get(address)
    found = dict(re.findall(r'name="(key|amount)" value="([^"]*)"', text(asked)))
    return client.post(address, {**found, "reason": WHY, **fields}) if fields else asked


def test_an_operator_refunds_a_payment_with_a_reason(operator, acme):
    payment = paid(acme)

    answer = refund_form(operator, payment, amount="5.00")

    refund, entry = Refund.objects.get(), AuditEntry.objects.get()
    assert answer.status_code == 302
    assert (refund.amount, refund.status, refund.actor) == (500, RefundStatus.OWED, "olga")
    assert (entry.action, entry.actor, entry.reason) == ("payment.refund", "olga", WHY)
    assert entry.detail == {"refund": str(refund.public_id), "units": 500}


def test_the_form_suggests_the_rest_and_names_errors(operator, acme):
    payment = paid(acme)
    make_refund(payment)

    offered = text(refund_form(operator, payment))
    answer = text(refund_form(operator, payment, amount="15.00", reason=" "))

    assert 'value="14.90"' in offered
    assert "at most 14.90 BRL is left to refund" in answer
    assert "Say why" in answer
    assert Refund.objects.count() == 1
    assert not AuditEntry.objects.exists()


def test_the_typed_reason_is_shown_with_the_refund(operator, acme):
    payment = paid(acme)

    refund_form(operator, payment, amount="5")

    refund = Refund.objects.get()
    assert refund.reason == WHY
    for address in (listing(Refund), page(refund), page(payment)):
        assert WHY in text(operator.get(address)), address


def test_a_card_number_is_refused_as_a_reason(operator, acme):
    answer = text(refund_form(operator, paid(acme), reason="paid with 4242.4242.4242.4242"))

    assert "Looks like a card number" in answer
    assert not AuditEntry.objects.exists()


def test_a_form_that_is_sent_twice_is_one_refund(operator, acme):
    payment = paid(acme)

    for _ in range(2):
        operator.post(
            reverse("admin:payments_payment_refund", args=[payment.pk]), {"amount": "5", "reason": WHY, "key": "k1"}
        )

    assert Refund.objects.count() == 1
    assert AuditEntry.objects.filter(action="payment.refund").count() == 1


async def test_a_payment_whose_money_a_dispute_withholds_is_not_refunded_by_its_address_either(visiting: As, tenant):  # noqa: F811
    payment = await in_thread(paid, tenant)
    person = await in_thread(lambda: make_person(tenant=tenant, role="owner"))
    address = f"/payments/{payment.correlation_id}/refund?tenant={tenant.slug}"
    of = {"tenant": tenant, "payment": payment, "processor_id": payment.processor_id, "currency": "BRL", "amount": 1990}
    dispute = await in_thread(
        lambda: Dispute.objects.create(**of, reference="du_1", status="needs_response", withdrawn=1990)
    )
    async with visiting(person) as visit:
        opened, form = await visit.get(address)
        status, page = await visit.post(address, amount="5", reason="sorry", key="k1")
        assert "withholds money" in page and "refunds/list" in page
        assert (status, await in_thread(Refund.objects.count)) == (409, 0)
        await in_thread(lambda: Dispute.objects.filter(pk=dispute.pk).update(withdrawn=0))
        status, _ = await visit.post(address, amount="5", reason="sorry", key="k2")

    assert 'name="amount"' not in form or opened != 200
    assert (status, await in_thread(Refund.objects.count)) == (302, 1)


def test_operators_are_refused_it_too_with_the_reason(operator, acme):
    payment = paid(acme)
    of = {"tenant": acme, "payment": payment, "processor_id": payment.processor_id, "currency": "BRL", "amount": 1990}
    Dispute.objects.create(**of, reference="du_1", status="lost", withdrawn=1990, closed_at=timezone.now())

    assert "withholds money" in text(refund_form(operator, payment, amount="5.00"))
    assert not Refund.objects.exists()


@pytest.mark.parametrize("amount", ["19.90", "15"], ids=["all of it", "more than is left then"])
def test_a_form_that_is_sent_again_gets_the_first_response_although_less_can_be_refunded(operator, acme, amount):
    form = {"amount": amount, "reason": WHY, "key": "k1"}
    address = reverse("admin:payments_payment_refund", args=[paid(acme).pk])

    first, again = operator.post(address, form), operator.post(address, form)
    other = operator.post(address, {**form, "amount": "1"})

    assert (first.status_code, again.status_code, again.url) == (302, 302, first.url)
    assert "sent before, with another amount" in text(other)
    assert Refund.objects.count() == 1
    assert AuditEntry.objects.filter(action="payment.refund").count() == 1


def test_without_its_audit_entry_no_refund_is_requested(operator, acme, monkeypatch):
    async def refuses(**_):
        raise RuntimeError("no entry, no action")

    payment = paid(acme)
    monkeypatch.setattr("payments.refunds.forms.audit.record", refuses)

    with pytest.raises(RuntimeError):
        refund_form(operator, payment, amount="5.00")

    assert not Refund.objects.exists()


@pytest.mark.parametrize("role", ["viewer", None])
def test_viewers_cannot_refund(acme, role):
    payment = paid(acme)
    person = make_person(tenant=acme if role else make_tenant(), role=role or "owner")
    client = as_person(person)

    answer = client.post(reverse("admin:payments_payment_refund", args=[payment.pk]), {"amount": "5", "reason": WHY})

    assert answer.status_code in (302, 404)
    assert not Refund.objects.exists()


def test_a_payments_page_shows_its_refunds_and_disputes(operator, acme):
    payment = paid(acme)
    make_refund(payment)
    dispute = {"reference": "du_1", "amount": 1990, "currency": "BRL", "status": "needs_response", "withdrawn": 1990}
    Dispute.objects.create(tenant=acme, payment=payment, processor=payment.processor, **dispute)

    shown = text(operator.get(page(payment)))

    assert "Refund 1" in shown
    assert "needs response" in shown
    assert "Refund…" not in shown  # the payer could get the money twice
    assert text(operator.get(listing(Dispute))).count("du_1") >= 1


@pytest.mark.parametrize("status", [RefundStatus.OWED, RefundStatus.UNCERTAIN])
def test_a_stopped_refund_is_retried_once(operator, acme, status):
    refund = stopped(paid(acme), status)

    asked = choose(operator, "refund_retry", refund)
    confirm(operator, asked)

    refund.refresh_from_db()
    assert "5.00 BRL of payment" in text(asked)
    assert (refund.status, refund.stopped_at, refund.tries_from) == (status, None, 25)
    assert AuditEntry.objects.get().action == "refund.retry"
    assert "none of the selected rows is in a state for it" in said(choose(operator, "refund_retry", refund))


def test_closing_a_refund_releases_its_amount(operator, acme):
    payment = paid(acme)
    refund = stopped(payment, RefundStatus.UNCERTAIN)

    confirm(operator, choose(operator, "refund_close", refund))

    refund.refresh_from_db()
    payment.refresh_from_db()
    assert (refund.status, refund.code, payment.owed_back) == (RefundStatus.FAILED, "closed", 0)
    assert AuditEntry.objects.get().action == "refund.close"


def test_a_refund_that_a_worker_still_tries_cannot_be_retried_or_closed(operator, acme):
    refund = make_refund(paid(acme))

    answer = choose(operator, "refund_close", refund)

    refund.refresh_from_db()
    assert "none of the selected rows is in a state for it" in said(answer)
    assert refund.status == RefundStatus.OWED


def test_the_list_filters_refunds_that_wait_for_an_operator(operator, acme):
    payment = paid(acme)
    waits, other = stopped(payment), make_refund(payment)

    shown = text(operator.get(listing(Refund), {"state": "stopped"}))

    assert str(waits.public_id)[:8] in shown
    assert str(other.public_id)[:8] not in shown


# -- The payment's page ----------------------------------------------------------------------------------------


async def test_an_owner_refunds_from_the_payments_page(visiting: As, tenant):  # noqa: F811
    payment = await in_thread(paid, tenant)
    person = await in_thread(lambda: make_person(tenant=tenant, role="owner"))
    address = f"/payments/{payment.correlation_id}"
    async with visiting(person) as visit:
        _, shown = await visit.get(f"{address}/live", tenant=tenant.slug)
        _, form = await visit.get(f"{address}/refund", tenant=tenant.slug)
        [key] = re.findall(r'name="key" value="(\w+)"', form)
        wrong, _ = await visit.post(f"{address}/refund?tenant={tenant.slug}", amount="50", reason="sorry", key=key)
        status, to = await visit.post(f"{address}/refund?tenant={tenant.slug}", amount="5", reason="sorry", key=key)

    assert f"{address}/refund?tenant={tenant.slug}" in shown
    assert 'value="19.90"' in form
    assert (wrong, status, to) == (422, 302, f"{address}/live?tenant={tenant.slug}")
    assert await in_thread(lambda: [refund.amount for refund in Refund.objects.all()]) == [500]


@pytest.mark.parametrize("amount", ["19.90", "15"], ids=["all of it", "more than is left then"])
async def test_the_form_of_the_page_sent_again_shows_the_payment(visiting: As, tenant, amount):  # noqa: F811
    payment = await in_thread(paid, tenant)
    person = await in_thread(lambda: make_person(tenant=tenant, role="owner"))
    address = f"/payments/{payment.correlation_id}/refund?tenant={tenant.slug}"
    async with visiting(person) as visit:
        await visit.get(f"/payments/{payment.correlation_id}/live", tenant=tenant.slug)
        sent = [await visit.post(address, amount=amount, reason="sorry", key="k1") for _ in range(2)]
        other, _ = await visit.post(address, amount="1", reason="sorry", key="k1")
        new, _ = await visit.post(address, amount=amount, reason="sorry", key="k2")

    assert sent == [(302, f"/payments/{payment.correlation_id}/live?tenant={tenant.slug}")] * 2
    assert (other, new) == (409, 404 if amount == "19.90" else 422)
    assert await in_thread(Refund.objects.count) == 1


@pytest.mark.parametrize("role", ["viewer", "stranger", "nobody"])
async def test_viewers_other_tenants_and_guests_have_no_refund_form(visiting: As, tenant, role):  # noqa: F811
    payment = await in_thread(paid, tenant)
    address = f"/payments/{payment.correlation_id}"
    people = {
        "viewer": lambda: make_person(tenant=tenant, role="viewer"),
        "stranger": lambda: make_person(tenant=make_tenant(), role="owner"),
        "nobody": lambda: None,
    }
    async with visiting(await in_thread(people[role])) as visit:
        _, shown = await visit.get(f"{address}/live", tenant=tenant.slug)
        got, _ = await visit.get(f"{address}/refund", tenant=tenant.slug)
        posted, _ = await visit.post(f"{address}/refund?tenant={tenant.slug}", amount="5", reason="x", key="k")

    assert "Refund…" not in shown
    assert (got, posted) == (404, 404)
    assert not await in_thread(Refund.objects.exists)


async def test_a_live_page_shows_the_refund_link_once_the_payment_is_refundable(visiting: As, tenant):  # noqa: F811
    payment = await in_thread(paid, tenant)
    person = await in_thread(lambda: make_person(tenant=tenant, role="owner"))
    async with visiting(person) as visit:
        piece = {"HX-Request": "true"}
        page = f"/payments/{payment.correlation_id}/live?tenant={tenant.slug}"
        async with visit.session.get(page, headers=piece) as response:
            shown = await response.text()

    assert "<html" not in shown
    assert "Refund…" in shown


async def test_the_payers_link_shows_no_refund_form(visiting: As, tenant):  # noqa: F811
    payment = await in_thread(paid, tenant)
    person = await in_thread(lambda: make_person(tenant=tenant, role="owner"))
    link = token_of(tenant.pk, payment.correlation_id)
    async with visiting(person) as visit:
        status, shown = await visit.get(f"/payments/{payment.correlation_id}/live", token=link)

    assert status == 200
    assert "Refund…" not in shown


async def test_the_refund_form_leads_back_to_a_payment_that_has_nothing_left_to_refund(visiting: As, tenant):  # noqa: F811
    payment = await in_thread(lambda: make_payment(tenant, status=FAILED))
    person = await in_thread(lambda: make_person(tenant=tenant, role="owner"))
    here = f"/payments/{payment.correlation_id}"
    async with (
        visiting(person) as visit,
        visit.session.get(f"{here}/refund?tenant={tenant.slug}", allow_redirects=False) as response,
    ):
        assert response.status == 302
        assert response.headers["Location"] == f"{here}/live?tenant={tenant.slug}"


def test_refunded_and_disputed_payments_look_so_in_the_admins_list(acme, operator):
    payment = paid(acme)
    others = [make_payment(acme, status=SUCCEEDED, processor=payment.processor) for _ in range(3)]
    Payment.objects.filter(pk=payment.pk).update(refunded=payment.amount)
    Payment.objects.filter(pk=others[0].pk).update(refunded=1)
    Dispute.objects.create(
        tenant=acme, payment=others[1], processor=payment.processor, reference="du_1", status="needs_response",
        reason="fraudulent", amount=1990, currency="BRL",
    )  # fmt: skip

    html = text(operator.get(reverse("admin:payments_payment_changelist"), {"tenant": "acme"}))

    shown = re.findall(r"(disputed|partly refunded|refunded|succeeded)", re.sub(r"(?s)^.*<tbody>", "", html))
    assert sorted(set(shown)) == ["disputed", "partly refunded", "refunded", "succeeded"]
