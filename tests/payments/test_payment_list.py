"""The console's list of payments: each search and filter, paging, common views, limits, and whose page it is."""

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import unescape
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.utils import timezone

from payments.books import search
from payments.books.search import ListSearch
from payments.models import Attempt, Dispute, Payment, Processor, Refund
from payments.states import FAILED, QUEUED, SUCCEEDED, UNCERTAIN, Reversal, Status
from queueing.models import Job
from registry.data import database, faults
from registry.models import AuditEntry, Tenant
from tests.factories import in_thread, make_dead_letter, make_payment, make_person, make_processor, make_tenant
from tests.queueing.test_console import As, visiting  # noqa: F401 - a fixture

LIST = "/payments/list"


@pytest.fixture
async def tenant() -> AsyncIterator[Tenant]:
    yield await in_thread(lambda: make_tenant(f"shop-{uuid4().hex[:8]}", name="Corner shop"))


@pytest.fixture
async def processor(tenant: Tenant) -> Processor:
    return await in_thread(make_processor, tenant, "default")


async def made(tenant: Tenant, **fields: Any) -> Payment:
    return await in_thread(lambda: make_payment(tenant, **fields))


async def found(tenant: Tenant, **filters: Any) -> list[UUID]:
    """The ids that the list shows, newest first."""
    page = await search.page_of(tenant.pk, ListSearch(**filters), limit=25)
    return [UUID(item["correlationId"]) for item in page.items]


async def refund(payment: Payment, amount: int) -> None:
    await in_thread(lambda: Payment.objects.filter(pk=payment.pk).update(refunded=amount, owed_back=amount))


async def dispute(payment: Payment, **fields: Any) -> Dispute:
    defaults = {"reference": f"dp_{uuid4().hex}", "amount": payment.amount, "currency": payment.currency}
    return await in_thread(
        lambda: Dispute.objects.create(
            tenant_id=payment.tenant_id,
            payment=payment,
            processor_id=payment.processor_id,
            **{**defaults, "status": "needs_response", "withdrawn": payment.amount, **fields},
        )
    )


# -- Search --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [4, 8, 13, 36])
async def test_a_payment_is_found_by_the_beginning_of_its_id(tenant, length):
    payment = await made(tenant, correlation_id=UUID("8f3a9c1d-77aa-4b0e-9000-00000000c0de"))
    await made(tenant, correlation_id=UUID("1f3a9c1d-77aa-4b0e-9000-00000000c0de"))

    assert await found(tenant, text=str(payment.correlation_id)[:length]) == [payment.correlation_id]


async def test_an_id_is_found_as_the_list_shortens_it(tenant):
    payment = await made(tenant, correlation_id=UUID("8f3a9c1d-77aa-4b0e-9000-00000000c0de"))

    assert await found(tenant, text="8F3A9C1D…c0de") == [payment.correlation_id]


@pytest.mark.parametrize("text", ["Coffee", "coffee two", "TWO", "offe", "100%", "açaí", 'say "hi"'])
async def test_a_payment_is_found_by_words_of_its_description(tenant, text):
    payment = await made(tenant, description='Two coffees and açaí, 100% fresh, say "hi"')
    await made(tenant, description="One tea, 100 fresh")

    assert await found(tenant, text=text) == [payment.correlation_id]


@pytest.mark.parametrize("text", ["A-1007", "a-10", "A-1007 coffees"])
async def test_a_payment_is_found_by_a_value_of_its_metadata_but_not_by_a_name(tenant, text):
    payment = await made(tenant, description="Two coffees", metadata={"orderNumber": "A-1007", "gift": "yes"})
    await made(tenant, metadata={"A-1007": "name only"})

    assert await found(tenant, text=text) == [payment.correlation_id]
    assert await found(tenant, text="orderNumber") == []


@pytest.mark.parametrize("text", ["19.90", "19,90", "R$19.90", "R$ 19,90", "BRL 19.90"])
async def test_a_payment_is_found_by_its_amount(tenant, text):
    payment = await made(tenant, amount=1990)
    await made(tenant, amount=1991)
    await made(tenant, amount=1990, currency="JPY")

    assert await found(tenant, text=text, home_currency="BRL") == [payment.correlation_id]


async def test_an_amount_is_compared_in_the_payments_own_currency(tenant):
    yen = await made(tenant, amount=1990, currency="JPY")
    real = await made(tenant, amount=199000)
    dinar = await made(tenant, amount=1990000, currency="BHD")

    assert await found(tenant, text="1990") == [dinar.correlation_id, real.correlation_id, yen.correlation_id]
    between = {"least": Decimal("1989.5"), "largest": Decimal("1990.5")}
    assert await found(tenant, **between) == [dinar.correlation_id, real.correlation_id, yen.correlation_id]


async def test_a_payment_is_found_by_the_processors_reference_of_it_its_refund_and_its_dispute(tenant, processor):
    payment = await made(tenant, status=SUCCEEDED, processor=processor)
    await made(tenant, status=SUCCEEDED, processor=processor)
    await in_thread(lambda: Attempt.objects.filter(payment_id=payment.pk).update(reference="pi_3Nabc"))
    await dispute(payment, reference="dp_1xyz")
    fields = {"amount": 1, "currency": "BRL", "fingerprint": b"", "number": 1, "reference": "re_7"}
    await in_thread(
        lambda: Refund.objects.create(tenant=tenant, payment=payment, processor=processor, public_id=uuid4(), **fields)
    )

    for reference in ("pi_3Nabc", "re_7", "dp_1xyz"):
        assert await found(tenant, text=reference) == [payment.correlation_id]
    assert await found(tenant, text="pi_3N") == []


async def test_a_search_finds_nothing_of_other_tenants(tenant, processor):
    other = await in_thread(lambda: make_tenant(f"other-{uuid4().hex[:8]}"))
    payment = await made(tenant, status=SUCCEEDED, processor=processor, description="Two coffees", amount=777)
    await in_thread(lambda: Attempt.objects.filter(payment_id=payment.pk).update(reference="pi_mine"))
    await dispute(payment, reference="dp_mine")

    for text in (str(payment.correlation_id), "coffees", "7.77", "pi_mine", "dp_mine"):
        assert await found(other, text=text) == []
        assert await found(tenant, text=text) == [payment.correlation_id]


# -- Filters ---------------------------------------------------------------------------------------------------


async def one_of_each_shown_state(tenant: Tenant, processor: Processor) -> dict[str, UUID]:
    payments = {status.value: await made(tenant, status=status, processor=processor) for status in Status}
    for shown in Reversal:
        payments[shown.value] = await made(tenant, status=SUCCEEDED, processor=processor)
    await refund(payments[Reversal.REFUNDED], 1990)
    await refund(payments[Reversal.PARTLY_REFUNDED], 1)
    await refund(payments[Reversal.DISPUTED], 1990)  # a dispute is shown first: it has a deadline
    await dispute(payments[Reversal.DISPUTED])
    await dispute(payments[Reversal.DISPUTE_LOST], status="lost", closed_at=timezone.now())
    await dispute(payments[SUCCEEDED.value], status="won", closed_at=timezone.now(), withdrawn=0)
    return {state: payment.correlation_id for state, payment in payments.items()}


async def test_each_state_is_filtered_as_it_is_shown(tenant, processor):
    payments = await one_of_each_shown_state(tenant, processor)

    for state, payment in payments.items():
        assert (state, await found(tenant, state=state)) == (state, [payment])
    everything = (await search.page_of(tenant.pk, ListSearch(), limit=25)).items
    assert {UUID(item["correlationId"]): item["shown"] for item in everything} == {p: s for s, p in payments.items()}


async def test_what_needs_attention_is_what_waits_for_a_person(tenant, processor):
    long_ago = timezone.now() - timedelta(minutes=6)
    doubt = await made(tenant, status=UNCERTAIN, processor=processor, in_doubt_since=long_ago)
    await made(tenant, status=UNCERTAIN, processor=processor, in_doubt_since=timezone.now())
    dead = await made(tenant, status=FAILED, processor=processor)
    await in_thread(make_dead_letter, dead)
    closed = await made(tenant, status=FAILED, processor=processor)
    await in_thread(lambda: make_dead_letter(closed, resolution="closed"))
    disputed, answered = [await made(tenant, status=SUCCEEDED, processor=processor) for _ in range(2)]
    await dispute(disputed)
    await dispute(answered, status="under_review")

    wanted = [disputed.correlation_id, dead.correlation_id, doubt.correlation_id]
    assert await found(tenant, state=search.ATTENTION) == wanted
    shown = await search.items_of(
        tenant.pk, ListSearch(state=search.ATTENTION), [dead.correlation_id, closed.correlation_id]
    )
    assert [UUID(item["correlationId"]) for item in shown] == [dead.correlation_id]


async def test_a_filter_by_processor_finds_what_the_column_names(tenant, processor):
    other = await in_thread(make_processor, tenant, "other")
    booked = await made(tenant, status=SUCCEEDED, processor=other)
    tried = await made(tenant, status=UNCERTAIN, processor=other)
    await made(tenant, status=SUCCEEDED, processor=processor)
    await made(tenant)

    assert await found(tenant, processor="other") == [tried.correlation_id, booked.correlation_id]
    assert await found(tenant, processor="none") == []


async def test_currency_and_limits_of_amount_and_time_are_inclusive(tenant):
    at = datetime(2026, 7, 15, 12, tzinfo=UTC)
    wanted = await made(tenant, amount=1000, currency="USD", created_at=at)
    for amount, currency, when in (
        (999, "USD", at),
        (1001, "USD", at),
        (1000, "EUR", at),
        (1000, "USD", at + timedelta(seconds=1)),
    ):
        await made(tenant, amount=amount, currency=currency, created_at=when)

    limits = {"least": Decimal(10), "largest": Decimal(10), "since": at, "until": at}
    assert await found(tenant, currency="USD", **limits) == [wanted.correlation_id]


async def test_filters_are_combined(tenant, processor):
    wanted = await made(tenant, status=FAILED, processor=processor, description="blue shirt")
    await made(tenant, status=FAILED, processor=processor, description="red shirt")
    await made(tenant, status=SUCCEEDED, processor=processor, description="blue shirt")

    assert await found(tenant, state="failed", text="blue", processor="default") == [wanted.correlation_id]
    assert await found(tenant, state="disputed", text="blue") == []


# -- Limits ----------------------------------------------------------------------------------------------------


async def test_a_search_that_was_cut_off_says_so_and_goes_on_from_there(tenant, monkeypatch):
    monkeypatch.setattr(search, "LOOKED_AT", 3)
    at = datetime(2026, 7, 15, 12, tzinfo=UTC)
    oldest = await made(tenant, description="needle", created_at=at)
    for n in range(1, 7):
        await made(tenant, created_at=at + timedelta(minutes=n))

    asked = ListSearch(text="needle")
    pages = [await search.page_of(tenant.pk, asked, limit=25)]
    while pages[-1].further:
        pages.append(await search.page_of(tenant.pk, asked, limit=25, cursor=pages[-1].further))

    assert [len(page.items) for page in pages] == [0, 0, 1]
    assert [page.looked_back_to for page in pages] == [at + timedelta(minutes=4), at + timedelta(minutes=1), None]
    assert pages[-1].items[0]["correlationId"] == str(oldest.correlation_id)
    assert [page.more for page in pages] == [True, True, False]


async def test_an_id_is_found_however_old_the_payment_is(tenant, monkeypatch):
    monkeypatch.setattr(search, "LOOKED_AT", 2)
    old = await made(tenant, created_at=datetime(2020, 1, 1, tzinfo=UTC))
    for _ in range(5):
        await made(tenant)

    assert await found(tenant, text=str(old.correlation_id)[:12]) == [old.correlation_id]


@pytest.mark.parametrize("state", [QUEUED.value, FAILED.value, Reversal.DISPUTED.value, Reversal.REFUNDED.value])
async def test_a_state_with_too_many_rows_is_looked_through_from_the_newest(tenant, processor, monkeypatch, state):
    status = Status(state) if state in Status.values else SUCCEEDED
    payments = [await made(tenant, status=status, processor=processor) for _ in range(6)]
    for payment in payments if status is SUCCEEDED else ():
        await (dispute(payment) if state == Reversal.DISPUTED else refund(payment, 1990))
    monkeypatch.setattr(search, "LOOKED_AT", 4)
    monkeypatch.setattr(search, "LOOKED_UP", 4)

    page = await search.page_of(tenant.pk, ListSearch(state=state), limit=25)
    rest = await search.page_of(tenant.pk, ListSearch(state=state), limit=25, cursor=page.further)

    shown = [UUID(item["correlationId"]) for item in (*page.items, *rest.items)]
    assert shown == [payment.correlation_id for payment in reversed(payments)]


async def test_a_search_that_takes_too_long_is_stopped_without_an_alarm(visiting: As, tenant, monkeypatch):  # noqa: F811
    monkeypatch.setattr(search, "TIME_LIMIT", 0.05)
    monkeypatch.setitem(search.SQL, "search", "SELECT pg_sleep(5), %(tenant)s::int")
    told: list[Any] = []
    monkeypatch.setattr(faults, "listeners", [told.append])
    person = await in_thread(lambda: make_person(tenant=tenant, role="viewer"))
    async with visiting(person) as visit:
        status, shown = await visit.get(LIST, q="coffee")

    assert (status, told) == (200, [])
    assert "took too long and was stopped" in shown


async def test_pages_follow_each_other_while_payments_arrive(tenant):
    before = [(await made(tenant)).correlation_id for _ in range(7)]
    seen, cursor = [], None
    while True:
        page = await search.page_of(tenant.pk, ListSearch(), limit=3, cursor=cursor)
        seen += [UUID(item["correlationId"]) for item in page.items]
        await made(tenant)
        if (cursor := page.next) is None:
            break

    assert seen == before[::-1]


# -- The page ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def viewer(tenant: Tenant) -> Any:
    return await in_thread(lambda: make_person(tenant=tenant, role="viewer"))


def rows(shown: str) -> list[str]:
    return re.findall(r'<tr role="row" data-id="([^"]+)"', shown)


def links(shown: str) -> dict[str, str]:
    """Addresses of links by their text."""
    return {text: unescape(to) for to, text in re.findall(r'<a [^>]*href="([^"]+)"[^>]*>([^<]+)</a>', shown)}


async def test_a_row_shows_the_description_and_the_state_that_the_money_is_in(visiting: As, tenant, processor, viewer):  # noqa: F811
    payment = await made(tenant, status=SUCCEEDED, processor=processor, description="<b>Two</b> coffees")
    await dispute(payment)
    async with visiting(viewer) as visit:
        _, shown = await visit.get(LIST)

    assert "&lt;b&gt;Two&lt;/b&gt; coffees" in shown
    [row] = re.findall(r"<tr role=\"row\" data-id.*?</tr>", shown, re.S)
    assert 'data-status="disputed"' in row


async def test_common_views_are_links_that_hold_their_filters(visiting: As, tenant, processor, viewer):  # noqa: F811
    payments = await one_of_each_shown_state(tenant, processor)
    yesterday = timezone.now() - timedelta(days=1, minutes=1)
    await made(tenant, status=FAILED, processor=processor, created_at=yesterday)
    async with visiting(viewer) as visit:
        _, shown = await visit.get(LIST)
        views = {name: links(shown)[name] for name in ("Uncertain", "Failed today", "Disputed", "Refunded")}
        seen = {name: rows((await visit.get(address))[1]) for name, address in views.items()}

    assert seen == {
        "Uncertain": [str(payments["uncertain"])],
        "Failed today": [str(payments["failed"])],
        "Disputed": [str(payments["disputed"])],
        "Refunded": [str(payments["refunded"])],
    }


async def test_dates_are_in_the_zone_of_the_address_and_shown_in_utc(visiting: As, tenant, viewer):  # noqa: F811
    inside = await made(tenant, created_at=datetime(2026, 7, 16, 2, 59, 59, tzinfo=UTC))
    await made(tenant, created_at=datetime(2026, 7, 16, 3, 0, tzinfo=UTC))
    await made(tenant, created_at=datetime(2026, 7, 15, 2, 59, tzinfo=UTC))
    day = {"from": "2026-07-15T00:00", "to": "2026-07-15T23:59"}
    async with visiting(viewer) as visit:
        _, here = await visit.get(LIST, **day, zone="America/Sao_Paulo")
        _, utc = await visit.get(LIST, **day)
        _, date = await visit.get(LIST, **{"from": "2026-07-15", "to": "2026-07-15"}, zone="America/Sao_Paulo")

    assert rows(here) == rows(date) == [str(inside.correlation_id)]
    assert len(rows(utc)) == 1
    assert "from 2026-07-15 03:00:00.000 UTC to 2026-07-16 02:59:59.999 UTC" in here
    assert 'value="2026-07-15T23:59"' in here
    assert 'value="2026-07-15T23:59"' in date


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"status": "lost"}, "“lost” is not a state."),
        ({"from": "yesterday"}, "“yesterday” is not a date and time."),
        ({"to": "9999-99-99T00:00"}, "“9999-99-99T00:00” is not a date and time."),
        ({"from": "2026-07-16T00:00", "to": "2026-07-15T00:00"}, "This is before the start."),
        ({"from": "0001-01-01T00:00", "zone": "Asia/Tokyo"}, "is not a date and time."),
        ({"zone": "Mars/Olympus"}, "“Mars/Olympus” is not a time zone."),
        ({"period": "3w"}, "“3w” is not a period."),
        ({"currency": "XXY"}, "“XXY” is not a currency such as BRL."),
        ({"amount_from": "ten"}, "An amount must be a number such as 1500."),
        ({"amount_to": "10000000000000000"}, "An amount must be at most 999999999999999."),
        ({"amount_to": "-1"}, "An amount cannot be negative."),
        ({"amount_from": "2", "amount_to": "1"}, "This amount is smaller than the one it should start from."),
        ({"q": "x" * 201}, "A search has at most 200 characters."),
        ({"q": "a b c d e f g h i"}, "A search has at most 8 words."),
        ({"q": "a\0b"}, "A search cannot contain this character."),
        ({"processor": "a\0b"}, "is not a name of a processor."),
    ],
)
async def test_an_invalid_filter_is_explained_beside_its_field_and_matches_nothing(
    visiting: As,  # noqa: F811
    tenant,
    viewer,
    query,
    said,
):
    await made(tenant)
    async with visiting(viewer) as visit:
        status, shown = await visit.get(LIST, **query)

    assert status == 200
    assert said in unescape(shown)
    assert rows(shown) == []
    assert "Export</button>" in shown
    assert "disabled>Export" in shown


async def test_the_address_of_older_rows_holds_every_filter(visiting: As, tenant, viewer):  # noqa: F811
    for n in range(30):
        await made(tenant, description=f"blue {n}")
    await made(tenant, description="red")
    async with visiting(viewer) as visit:
        _, first = await visit.get(LIST, q="blue", currency="BRL", amount_from="1")
        older = links(first)["Older"]
        _, second = await visit.get(older.partition("#")[0])

    assert "q=blue" in older
    assert "currency=BRL" in older
    assert "amount_from=1" in older
    assert (len(rows(first)), len(rows(second))) == (25, 5)
    assert not set(rows(first)) & set(rows(second))


@pytest.mark.parametrize("cursor", ["nonsense", "AAAA"])
async def test_an_address_with_a_cursor_that_is_none_is_not_found(visiting: As, tenant, viewer, cursor):  # noqa: F811
    async with visiting(viewer) as visit:
        status, _ = await visit.get(LIST, cursor=cursor)

    assert status == 404


async def test_the_rows_that_a_page_asks_for_are_those_that_match_its_filters(visiting: As, tenant, viewer):  # noqa: F811
    blue, red = await made(tenant, description="blue"), await made(tenant, description="red")
    other = await in_thread(lambda: make_tenant(f"other-{uuid4().hex[:8]}"))
    theirs = await made(other, description="blue")
    ids = "&".join(f"id={payment.correlation_id}" for payment in (blue, red, theirs))
    async with visiting(viewer) as visit:
        _, matching = await visit.get(f"{LIST}/rows?q=blue&{ids}")
        _, all_three = await visit.get(f"{LIST}/rows?{ids}")
        wrong, _ = await visit.get(f"{LIST}/rows?id=1")
        many, _ = await visit.get(f"{LIST}/rows?" + "&".join(f"id={uuid4()}" for _ in range(51)))

    assert rows(matching) == [str(blue.correlation_id)]
    assert rows(all_three) == [str(red.correlation_id), str(blue.correlation_id)]
    assert (wrong, many) == (404, 404)


# -- Export -----------------------------------------------------------------------------------------------------


async def jobs(tenant: Tenant) -> list[Job]:
    async with database.own_connection():
        return [job async for job in Job.async_objects.filter(tenant=tenant)]


@pytest.mark.parametrize("role", ["viewer", "operator", "owner"])
async def test_an_export_is_a_job_with_the_current_filters(visiting: As, tenant, role):  # noqa: F811
    person = await in_thread(lambda: make_person(tenant=tenant, role=role))
    async with visiting(person) as visit:
        _, shown = await visit.get(LIST, status="refunded", q="coffee", amount_from="1.50")
        [to] = re.findall(r'<form method="post" action="(/payments/[^"]+)"', shown)
        status, where = await visit.post(unescape(to))

    [job] = await jobs(tenant)
    assert (status, where) == (302, f"/jobs/{job.uuid}/live?tenant={tenant.slug}")
    assert job.kind == "payments.export"
    wanted = {"search": "coffee", "state": "refunded", "amountFrom": "1.50", "homeCurrency": "BRL"}
    assert json.loads(job.input) == {"matching": wanted}
    entry = await in_thread(AuditEntry.objects.get, tenant=tenant)
    assert (entry.actor, entry.action, entry.target) == (person.username, "payments.export", f"job {job.uuid}")


async def test_a_guest_sees_the_list_of_the_open_tenant_but_exports_nothing(visiting: As, settings):  # noqa: F811
    tenant = await in_thread(lambda: make_tenant(f"shop-{uuid4().hex[:8]}", open=True))
    settings.REGISTRY_OPEN_TENANT = tenant.slug
    payment = await made(tenant, description="coffee")
    async with visiting() as visit:
        _, shown = await visit.get(LIST, q="coffee")
        status, _ = await visit.post(f"{LIST}/export?tenant={tenant.slug}")

    assert rows(shown) == [str(payment.correlation_id)]
    assert "Export" not in shown
    assert status == 404
    assert await jobs(tenant) == []


async def test_a_person_of_another_tenant_sees_and_exports_nothing(visiting: As, tenant):  # noqa: F811
    await made(tenant)
    other = await in_thread(lambda: make_tenant(f"other-{uuid4().hex[:8]}"))
    person = await in_thread(lambda: make_person(tenant=other, role="owner"))
    async with visiting(person) as visit:
        seen = [(await visit.get(address, tenant=tenant.slug))[0] for address in (LIST, f"{LIST}/rows")]
        sent, _ = await visit.post(f"{LIST}/export?tenant={tenant.slug}")

    assert (seen, sent) == ([404, 404], 404)


async def test_an_export_reads_all_matches_in_blocks(tenant, monkeypatch):
    monkeypatch.setattr(search, "AT_ONCE", 4)
    wanted = [(await made(tenant, description="blue" if n % 3 else "red")).correlation_id for n in range(11)]
    blocks = [items async for items in search.all_of(tenant.pk, ListSearch(text="blue"))]

    exported = [UUID(item["correlationId"]) for items in blocks for item in items]
    assert exported == [payment for n, payment in enumerate(wanted) if n % 3][::-1]


async def test_times_without_a_zone_are_those_of_the_tenants_own(visiting: As, tenant):  # noqa: F811
    """Without scripts the browser's zone is unknown: what a person types is in the zone of the tenant's settings."""
    await Tenant.async_objects.filter(pk=tenant.pk).aupdate(time_zone="America/Sao_Paulo")  # UTC-3
    moment = datetime(2026, 11, 3, 1, 30, tzinfo=UTC)
    payment = await in_thread(lambda: make_payment(tenant, created_at=moment))
    async with visiting(await in_thread(lambda: make_person(tenant=tenant, role="viewer"))) as visit:
        _, there = await visit.get("/payments/list", **{"from": "2026-11-02T22:00", "to": "2026-11-02T23:00"})
        _, not_there = await visit.get("/payments/list", **{"from": "2026-11-03T01:00", "to": "2026-11-03T02:00"})

    assert str(payment.correlation_id) in there
    assert str(payment.correlation_id) not in not_there
