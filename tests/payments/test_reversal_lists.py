"""The console's lists of refunds and disputes: what they show, filters, paging, actions, and whose pages they are."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from payments.models import Dispute, Payment, Processor, Refund
from payments.refunds import listing
from payments.states import SUCCEEDED, RefundStatus
from registry.models import AuditEntry, Tenant
from tests.factories import in_thread, make_payment, make_person, make_processor, make_stripe, make_tenant
from tests.queueing.test_console import As, visiting  # noqa: F401 - a fixture

REFUNDS, DISPUTES = "/refunds/list", "/disputes/list"


@pytest.fixture
async def tenant() -> Tenant:
    return await in_thread(lambda: make_tenant(f"shop-{uuid4().hex[:8]}"))


@pytest.fixture
async def processor(tenant: Tenant) -> Processor:
    return await in_thread(make_processor, tenant, "default")


@pytest.fixture
async def payment(tenant: Tenant, processor: Processor) -> Payment:
    return await in_thread(lambda: make_payment(tenant, status=SUCCEEDED, processor=processor))


async def person(tenant: Tenant, role: str = "operator") -> Any:
    return await in_thread(lambda: make_person(tenant=tenant, role=role))


async def refund(payment: Payment, **fields: Any) -> Refund:
    def make() -> Refund:
        number = Refund.objects.filter(payment=payment).count() + 1
        defaults = {"amount": 500, "currency": "BRL", "fingerprint": b"", "public_id": uuid4(), "number": number}
        shared = {"tenant_id": payment.tenant_id, "payment": payment, "processor_id": payment.processor_id}
        return Refund.objects.create(**{**shared, **defaults, **fields})

    return await in_thread(make)


async def stopped(payment: Payment, **fields: Any) -> Refund:
    """A refund that workers gave up."""
    return await refund(payment, stopped_at=timezone.now(), run_at=datetime(9999, 12, 31, tzinfo=UTC), **fields)


async def dispute(payment: Payment, **fields: Any) -> Dispute:
    defaults = {"amount": 1990, "currency": "BRL", "reference": f"dp_{uuid4().hex[:8]}", "status": "needs_response"}
    shared = {"tenant_id": payment.tenant_id, "payment": payment, "processor_id": payment.processor_id}
    return await in_thread(lambda: Dispute.objects.create(**{**shared, **defaults, **fields}))


def shown_refunds(text: str) -> list[str]:
    return re.findall(r'id="refund-([^"]+)"', text)


def shown_disputes(text: str) -> list[int]:
    return [int(number) for number in re.findall(r'id="dispute-(\d+)"', text)]


def rows(text: str) -> list[str]:
    """The rows of the table in words."""
    body = text.partition("<tbody")[2]
    return [" ".join(re.sub(r"<[^>]+>", " ", unescape(row)).split()) for row in re.findall(r"<tr.*?</tr>", body, re.S)]


# -- Refunds ---------------------------------------------------------------------------------------------------


async def test_a_refund_is_shown_with_its_payment_amount_state_and_reason(visiting: As, tenant, payment):  # noqa: F811
    await refund(payment, reason="torn box", status=RefundStatus.RETURNED, actor="ana")
    await refund(payment, status=RefundStatus.FAILED, code="insufficient_funds", external=True)
    async with visiting(await person(tenant, "viewer")) as visit:
        status, shown = await visit.get(REFUNDS)

    failed, returned = rows(shown)
    assert status == 200
    assert f"/payments/{payment.correlation_id}/live?tenant={tenant.slug}" in shown
    assert "R$5.00 ● returned torn box ana default" in returned
    assert "✕ failed the account has not enough money at the processor" in failed


@pytest.mark.parametrize("status", RefundStatus)
async def test_refunds_are_filtered_by_each_state(visiting: As, tenant, payment, status):  # noqa: F811
    refunds = {one: await refund(payment, status=one) for one in RefundStatus}
    async with visiting(await person(tenant)) as visit:
        _, shown = await visit.get(REFUNDS, status=status.value)

    assert shown_refunds(shown) == [str(refunds[status].public_id)]


async def test_refunds_are_found_by_payment_id_reference_and_reason(visiting: As, tenant, payment, processor):  # noqa: F811
    other = await in_thread(lambda: make_payment(tenant, status=SUCCEEDED, processor=processor))
    wanted = await refund(payment, reference="re_9", reason="Torn box, 100% paper")
    await refund(other, reference="re_8", reason="late, 100 paper")
    async with visiting(await person(tenant)) as visit:
        for text in (str(payment.correlation_id)[:9], "re_9", "torn", "100%", str(wanted.public_id)):
            _, shown = await visit.get(REFUNDS, q=text)
            assert (text, shown_refunds(shown)) == (text, [str(wanted.public_id)])


async def test_refunds_are_filtered_by_time_in_a_zone(visiting: As, tenant, payment):  # noqa: F811
    at = datetime(2026, 7, 16, 2, 59, tzinfo=UTC)
    wanted = await refund(payment, created_at=at)
    await refund(payment, created_at=at + timedelta(minutes=1))
    limits = {"from": "2026-07-15T23:59", "to": "2026-07-15T23:59", "zone": "America/Sao_Paulo"}
    async with visiting(await person(tenant)) as visit:
        _, shown = await visit.get(REFUNDS, **limits)

    assert shown_refunds(shown) == [str(wanted.public_id)]
    assert "from 2026-07-16 02:59:00.000 UTC to 2026-07-16 02:59:59.999 UTC" in shown


async def test_an_operator_retries_a_refund_that_was_given_up(visiting: As, tenant, payment):  # noqa: F811
    waits = await stopped(payment)
    await refund(payment)
    async with visiting(await person(tenant)) as visit:
        _, shown = await visit.get(REFUNDS, status="stopped")
        [address] = [unescape(to) for to in re.findall(r'href="([^"]+do=retry)"', shown)]
        _, question = await visit.get(address)
        done, back = await visit.post(address, do="retry", seen=1, reason="the processor is back")
        _, after = await visit.get(REFUNDS, status="stopped")

    await in_thread(waits.refresh_from_db)
    entry = await in_thread(AuditEntry.objects.get, action="refund.retry")
    assert shown_refunds(shown) == [str(waits.public_id)]
    assert "The payer gets the money back once." in unescape(question)
    assert (done, back, waits.stopped_at) == (302, f"{REFUNDS}?tenant={tenant.slug}", None)
    assert entry.reason == "the processor is back"
    assert shown_refunds(after) == []


async def test_closing_a_refund_lets_its_amount_be_refunded_again(visiting: As, tenant, payment):  # noqa: F811
    waits = await stopped(payment)
    await in_thread(lambda: Payment.objects.filter(pk=payment.pk).update(owed_back=500))
    address = f"/refunds/{waits.public_id}/act?tenant={tenant.slug}"
    async with visiting(await person(tenant)) as visit:
        _, question = await visit.get(address, do="close")
        await visit.post(address, do="close", seen=1, reason="it is not there")

    await in_thread(waits.refresh_from_db)
    await in_thread(payment.refresh_from_db)
    assert "a second one would pay the payer twice" in question
    assert (waits.status, payment.owed_back) == (RefundStatus.FAILED, 0)


async def test_a_refund_that_a_worker_still_tries_is_not_retried(visiting: As, tenant, payment):  # noqa: F811
    one = await refund(payment)
    address = f"/refunds/{one.public_id}/act?tenant={tenant.slug}"
    async with visiting(await person(tenant)) as visit:
        status, back = await visit.get(address, do="retry")
        _, shown = await visit.get(back)

    assert (status, back) == (302, f"{REFUNDS}?tenant={tenant.slug}")
    assert "nothing to do. Nothing was changed." in shown


async def test_viewers_and_other_tenants_retry_nothing(visiting: As, tenant, payment):  # noqa: F811
    waits = await stopped(payment)
    address = f"/refunds/{waits.public_id}/act"
    other = await in_thread(lambda: make_tenant(f"other-{uuid4().hex[:8]}"))
    answers = []
    for member, at in (
        (await person(tenant, "viewer"), tenant),
        (await person(other), other),
        (await person(other), tenant),
    ):
        async with visiting(member) as visit:
            answers.append((await visit.get(address, tenant=at.slug, do="retry"))[0])
            answers.append((await visit.post(f"{address}?tenant={at.slug}", do="retry", seen=1, reason="x"))[0])
    async with visiting(await person(tenant, "viewer")) as visit:
        _, shown = await visit.get(REFUNDS)

    await in_thread(waits.refresh_from_db)
    assert answers == [404] * 6
    assert "do=retry" not in shown
    assert waits.stopped_at is not None


# -- Disputes --------------------------------------------------------------------------------------------------


async def test_a_dispute_is_shown_with_its_deadline_and_what_the_money_does(visiting: As, tenant, payment):  # noqa: F811
    due = datetime(2026, 12, 24, 18, 0, tzinfo=UTC)
    await dispute(payment, reason="fraudulent", due_by=due, withdrawn=1990)
    await dispute(payment, status="warning_under_review", due_by=due)
    await dispute(payment, status="won", closed_at=timezone.now())
    await dispute(payment, status="lost", closed_at=timezone.now(), withdrawn=990)
    async with visiting(await person(tenant, "viewer")) as visit:
        _, shown = await visit.get(DISPUTES)

    lost, won, review, needs = rows(shown)
    assert "▲ needs response fraudulent 2026-12-24 18:00 UTC withheld" in needs
    assert "◔ under review – – not withheld" in review
    assert "● won – – yours" in won
    assert "▼ lost – – R$9.90 lost" in lost
    assert "Evidence is given at the processor." in shown


@pytest.mark.parametrize(
    ("live", "url", "expected"),
    [
        (True, "", "https://dashboard.stripe.com/disputes/dp_7"),
        (False, "", "https://dashboard.stripe.com/test/disputes/dp_7"),
        (False, "http://127.0.0.1:9/", "http://127.0.0.1:9/sandbox/dispute/dp_7"),
    ],
)
async def test_evidence_is_given_at_stripe(visiting: As, live, url, expected):  # noqa: F811
    mode = {"mode": "live"} if live else {}
    tenant = await in_thread(lambda: make_tenant(f"shop-{uuid4().hex[:8]}", **mode))
    stripe = await in_thread(lambda: make_stripe(tenant, url))
    await in_thread(lambda: Processor.objects.filter(pk=stripe.pk).update(url=url))
    payment = await in_thread(lambda: make_payment(tenant, status=SUCCEEDED, processor=stripe))
    await dispute(payment, reference="dp_7")
    async with visiting(await person(tenant)) as visit:
        _, shown = await visit.get(DISPUTES)

    assert f'href="{expected}"' in shown


@pytest.mark.parametrize("state", listing.DISPUTE_STATES)
async def test_disputes_are_filtered_by_each_state(visiting: As, tenant, payment, state):  # noqa: F811
    now = timezone.now()
    disputes = {
        "needs_response": await dispute(payment),
        "under_review": await dispute(payment, status="under_review"),
        "won": await dispute(payment, status="won", closed_at=now),
        "lost": await dispute(payment, status="lost", closed_at=now, withdrawn=1),
    }
    async with visiting(await person(tenant)) as visit:
        _, shown = await visit.get(DISPUTES, status=state)

    assert shown_disputes(shown) == [disputes[state].pk]


# -- Both ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [REFUNDS, DISPUTES])
@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"status": "nonsense"}, "“nonsense” is not a state."),
        ({"from": "yesterday"}, "“yesterday” is not a date and time."),
        ({"q": "a\0b"}, "A search cannot contain this character."),
    ],
)
async def test_an_invalid_filter_is_explained(visiting: As, tenant, payment, address, query, said):  # noqa: F811
    await refund(payment)
    await dispute(payment)
    async with visiting(await person(tenant)) as visit:
        status, shown = await visit.get(address, **query)

    assert (status, rows(shown)) == (200, [])
    assert said in unescape(shown)


async def test_pages_follow_each_other_while_refunds_arrive(visiting: As, tenant, payment):  # noqa: F811
    before = [str((await refund(payment)).public_id) for _ in range(30)]
    async with visiting(await person(tenant)) as visit:
        _, first = await visit.get(REFUNDS)
        await refund(payment)
        [older] = [unescape(to) for to in re.findall(r'href="([^"]+cursor=[^"]+)"', first)]
        _, second = await visit.get(older.partition("#")[0])

    assert shown_refunds(first) + shown_refunds(second) == before[::-1]


async def test_a_filter_that_looks_through_many_rows_goes_on_from_there(tenant, payment, monkeypatch):
    monkeypatch.setattr(listing, "LOOKED_AT", 3)
    wanted = await refund(payment, reason="needle")
    for _ in range(4):
        await refund(payment)
    asked = listing.ReversalFilters(text="needle")

    first = await listing.refunds(tenant.pk, asked, limit=25)
    second = await listing.refunds(tenant.pk, asked, limit=25, before=first.next)

    assert (first.rows, first.further) == ([], True)
    assert [row.id for row in second.rows] == [wanted.pk]
    assert not second.further


@pytest.mark.parametrize("address", [REFUNDS, DISPUTES])
async def test_a_cursor_that_is_none_is_not_found(visiting: As, tenant, address):  # noqa: F811
    async with visiting(await person(tenant)) as visit:
        answers = [(await visit.get(address, cursor=cursor))[0] for cursor in ("x", "-1", "9" * 30, "²")]

    assert answers == [404] * 4


@pytest.mark.parametrize("address", [REFUNDS, DISPUTES])
async def test_the_lists_are_for_members_of_the_tenant(visiting: As, settings, tenant, payment, address):  # noqa: F811
    await refund(payment)
    await dispute(payment)
    await in_thread(lambda: Tenant.objects.filter(pk=tenant.pk).update(open=True))
    settings.REGISTRY_OPEN_TENANT = tenant.slug
    other = await in_thread(lambda: make_tenant(f"other-{uuid4().hex[:8]}"))
    async with visiting() as visit:
        guest, where = await visit.get(address)
    async with visiting(await person(other)) as visit:
        stranger, _ = await visit.get(address, tenant=tenant.slug)
        _, theirs = await visit.get(address)

    assert (guest, where.partition("?")[0], stranger) == (302, "/login", 404)
    assert rows(theirs) == []
