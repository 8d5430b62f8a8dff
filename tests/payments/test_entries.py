"""The ledger as it is read: totals per currency, pages of entries with their filters, and the file of them."""

import csv
import io
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from payments.books import entries
from payments.books.entries import EntryFilters, page_of, totals
from payments.models import LedgerEntry, Processor
from payments.processors.reports import DisputeReport, Subject
from payments.refunds import disputes, refunds
from registry.data import database
from registry.models import Tenant
from tests.conftest import Api
from tests.factories import in_thread, make_processor
from tests.payments.refunding import book, booked, pay_back
from tests.payments.test_jobs import content_of, finished
from tests.settling import accept, settle_all


@pytest.fixture
async def sandbox(tenant: Tenant) -> Processor:
    return await in_thread(make_processor, tenant, "default", fee="0.05")


async def lines(tenant: Tenant) -> list[LedgerEntry]:
    return [line async for line in LedgerEntry.async_objects.filter(tenant=tenant).order_by("-id")]


# -- Totals --------------------------------------------------------------------------------------------------


async def test_totals_are_the_sums_of_the_entries(tenant, sandbox):
    await accept(tenant, 3, amount=1990)
    await accept(tenant, amount=700, currency="JPY")
    await settle_all(tenant)
    [refunded] = await booked(tenant, amount=1000)
    await refunds.refund(tenant_id=tenant.pk, correlation_id=refunded, amount=300)
    await pay_back(refunded, "returned")
    await book(disputes, tenant, sandbox, dispute_of(tenant, refunded))

    found = {one.currency: one for one in await totals(tenant.pk)}

    sums: Counter[tuple[str, str, str]] = Counter()
    for line in await lines(tenant):
        sums[line.currency, line.cause, line.account] += line.amount
    assert set(found) == {"BRL", "JPY"}
    for unit, one in found.items():
        assert one.gross == sums[unit, "payment", "processor"]
        assert one.fees == -sums[unit, "payment", "fees"]
        assert one.refunds == sums[unit, "refund", "balance"]
        assert one.disputes == sums[unit, "dispute", "balance"]
        assert one.net == -sum(sums[unit, cause, "balance"] for cause in LedgerEntry.Cause.values)
    assert (found["BRL"].refunds, found["BRL"].disputes, found["JPY"].refunds) == (300, 700, 0)
    assert (found["BRL"].payments, found["JPY"].payments) == (4, 1)


def dispute_of(tenant: Tenant, payment: UUID) -> DisputeReport:
    return DisputeReport(
        reference="du_1",
        subject=Subject(tenant_id=tenant.pk, correlation_id=payment),
        amount=700,
        currency="BRL",
        reason="fraudulent",
        status="needs_response",
        withdrawn=700,
        movements=1,
        opened_at=datetime(2026, 7, 15, tzinfo=UTC),
    )


# -- Pages ---------------------------------------------------------------------------------------------------


async def test_pages_follow_one_another_without_gaps_and_show_debits_and_credits(tenant, sandbox):
    await accept(tenant, 5, amount=1990)
    await settle_all(tenant)

    read: list[dict[str, Any]] = []
    before = None
    while True:
        page = await page_of(tenant.pk, EntryFilters(), limit=4, before=before)
        read += page.items
        before = page.next
        if before is None:
            break

    assert [one["id"] for one in read] == [line.id for line in await lines(tenant)]
    assert {(one["account"], one["debit"], one["credit"]) for one in read} == {
        ("processor", "19.90", ""),
        ("fees", "", "1.00"),
        ("balance", "", "18.90"),
    }
    assert {one["processor"] for one in read} == {"default"}


async def test_filters_by_account_and_payment(tenant, sandbox):
    first, second = await accept(tenant, 2)
    await settle_all(tenant)

    fees = await page_of(tenant.pk, EntryFilters(account="fees"), limit=10)
    mine = await page_of(tenant.pk, EntryFilters(payment=second), limit=10)
    both = await page_of(tenant.pk, EntryFilters(payment=first, account="balance"), limit=10)
    none = await page_of(tenant.pk, EntryFilters(payment=uuid4()), limit=10)

    assert {one["correlationId"] for one in fees.items} == {str(first), str(second)}
    assert [one["correlationId"] for one in mine.items] == [str(second)] * 3
    assert [(one["correlationId"], one["account"]) for one in both.items] == [(str(first), "balance")]
    assert none.items == []


@pytest.fixture
async def two_months(tenant, sandbox) -> list[LedgerEntry]:
    """An entry every six hours, of two tenants in turn, so that ids of one have gaps."""

    def make() -> None:
        other = make_processor(Tenant.objects.create(slug=f"other-{uuid4().hex[:8]}", name="other"))
        start = datetime(2026, 1, 1, tzinfo=UTC)
        LedgerEntry.objects.bulk_create(
            LedgerEntry(
                tenant_id=one.tenant_id, payment_id=10**9 + n, processor_id=one.pk, account="fees", amount=-1, currency="BRL",
                at=start + timedelta(hours=6 * n),
            )
            for n in range(240)
            for one in (sandbox, other)
        )  # fmt: skip

    await in_thread(make)
    async with database.own_connection():
        return await lines(tenant)


@pytest.mark.parametrize(
    ("since", "until"),
    [
        (datetime(2026, 1, 20, tzinfo=UTC), datetime(2026, 1, 22, tzinfo=UTC)),
        (datetime(2026, 2, 1, 3, tzinfo=UTC), None),
        (None, datetime(2026, 1, 1, tzinfo=UTC)),
        (datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 2, 1, tzinfo=UTC)),
        (datetime(2027, 1, 1, tzinfo=UTC), None),
        (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)),
        (datetime(2026, 1, 22, tzinfo=UTC), datetime(2026, 1, 20, tzinfo=UTC)),
    ],
)
async def test_a_filter_by_time_finds_exactly_the_entries_of_that_time(tenant, two_months, since, until):
    page = await page_of(tenant.pk, EntryFilters(from_=since, to=until), limit=1000)

    expected = [
        line.id for line in two_months if (since is None or line.at >= since) and (until is None or line.at <= until)
    ]
    assert [one["id"] for one in page.items] == expected


async def test_the_search_for_a_time_reads_a_handful_of_entries(tenant, two_months):
    found = [await entries._first_since(tenant.pk, line.at) for line in two_months]

    for line, first in zip(two_months, found, strict=True):
        assert first <= line.id
        assert not any(first <= other.id < line.id for other in two_months)


# -- The file ------------------------------------------------------------------------------------------------


async def test_the_job_writes_the_entries_oldest_first(api: Api, tenant, sandbox, monkeypatch):
    monkeypatch.setattr(entries, "SLICE", 4)
    await accept(tenant, 3, amount=1990)
    await settle_all(tenant)

    job, result = await finished(api, "reports.ledger", {"account": "balance"})
    whole, _ = await finished(api, "reports.ledger")

    written = list(csv.DictReader(io.StringIO((await content_of(api, job)).decode())))
    everything = list(csv.DictReader(io.StringIO((await content_of(api, whole)).decode())))
    assert result == {"entries": 3, "size": job["file"]["size"]}
    assert [(row["account"], row["credit"], row["debit"]) for row in written] == [("balance", "18.90", "")] * 3
    assert [int(row["id"]) for row in everything] == [line.id for line in reversed(await lines(tenant))]
