"""The summary equals a count of single payments in any window, to the millisecond."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from django.db import connection
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec import structs

from payments.books import summary
from payments.intake import intake
from payments.intake.payment import NewPayment
from payments.models import Processor
from payments.processors.base import Result
from payments.settle.decisions import Settlement
from payments.settle.work import PaymentWork
from payments.states import SUCCEEDED
from registry.data import database
from registry.models import Tenant
from tests.conftest import Api, at_work, eventually, make_key
from tests.depth import deep
from tests.factories import in_thread, make_processor, make_tenant
from tests.settling import settle_due

NOON = datetime(2025, 7, 15, 12, tzinfo=UTC)
WORKER = 77


def milliseconds(at: datetime) -> datetime:
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


# Around full hours and seconds, where roll-ups and single payments meet, and anywhere in three days.
edges = st.builds(
    lambda hours, seconds, millis: NOON + timedelta(hours=hours, seconds=seconds, milliseconds=millis),
    st.integers(-3, 3),
    st.sampled_from([0, 0, 0, 1, 2, 59, 3599]),
    st.sampled_from([0, 0, 1, 2, 499, 500, 998, 999, -1]),
)
anywhere = st.datetimes(datetime(2025, 7, 14), datetime(2025, 7, 17), timezones=st.just(UTC)).map(milliseconds)
moments = edges | anywhere


async def settle(tenant: Tenant, processors: list[Processor], times: list[datetime], currency: str = "BRL") -> None:
    """Book a payment at each of `times`, in turns at the processors: claimed and settled as a worker does it."""
    orders = [
        NewPayment(tenant_id=tenant.pk, correlation_id=uuid4(), amount=100 + n, currency=currency)
        for n in range(len(times))
    ]
    await intake.submit_many(orders)
    work = PaymentWork()
    claims = sorted(await work.claim(WORKER, len(times)), key=lambda claim: claim.amount)
    assert len(claims) == len(times)
    settlements = []
    for n, (claim, at) in enumerate(zip(claims, times, strict=True)):
        processor = processors[n % len(processors)]
        account = structs.replace(claim.account, id=processor.pk, name=processor.name)
        booked = structs.replace(claim, account=account, requested_at=at)
        settlements.append(
            Settlement(claim=booked, status=SUCCEEDED, outcome=Result.BOOKED, code="", detail="Booked", latency_ms=1)
        )
    assert all(await work.write(settlements))
    await work.close()


async def counted(
    tenant: Tenant, start: datetime | None, end: datetime | None, currency: str | None = None
) -> dict[str, Any]:
    """The same, payment by payment."""
    rows = await database.fetch(
        "SELECT r.name, count(p.id), coalesce(sum(p.amount), 0)::bigint FROM payments_processor r LEFT JOIN payments_payment p"
        " ON p.processor_id = r.id AND p.status = 'succeeded' AND p.requested_at >= %(start)s::timestamptz"
        " AND p.requested_at <= %(end)s::timestamptz AND (%(currency)s::text IS NULL OR p.currency = %(currency)s::text)"
        " WHERE r.tenant_id = %(tenant)s GROUP BY r.id, r.name ORDER BY r.id",
        {
            "tenant": tenant.pk,
            "start": start.isoformat() if start else "-infinity",
            "end": end.isoformat() if end else "infinity",
            "currency": currency,
        },
    )
    return {name: {"totalRequests": n, "totalAmount": Decimal(amount) / 100} for name, n, amount in rows}


@pytest.fixture
async def booked(tenant: Tenant) -> Tenant:
    """A tenant with 240 bookings, most of them at the edges of seconds and hours."""
    processors = [await in_thread(make_processor, tenant, name) for name in ("default", "fallback")]
    around = [
        NOON + timedelta(hours=hour, seconds=second, milliseconds=milli)
        for hour in (-2, -1, 0, 1)
        for second in (-1, 0, 1, 1800, 3599)
        for milli in (0, 1, 2, 499, 500, 501, 997, 998, 999)
    ]
    await settle(tenant, processors, around + [NOON + timedelta(hours=n / 7) for n in range(-200, 220, 7)])
    return tenant


@settings(max_examples=deep(50, 1000), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.none() | moments, end=st.none() | moments)
@example(start=NOON, end=NOON)
@example(start=NOON, end=NOON + timedelta(hours=1))
@example(start=NOON, end=NOON + timedelta(milliseconds=-1))
@example(start=NOON + timedelta(milliseconds=1), end=NOON + timedelta(milliseconds=998))
@example(start=NOON + timedelta(milliseconds=-1), end=NOON + timedelta(hours=1, milliseconds=999))
@example(start=NOON + timedelta(hours=1), end=NOON)
@example(start=None, end=None)
async def test_the_summary_of_any_window_equals_a_count_of_single_payments(booked: Tenant, start, end):
    wanted = await counted(booked, start, end)

    found = await summary.summary(tenant_id=booked.pk, start=start, end=end)

    assert found == wanted


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(times=st.lists(moments, min_size=1, max_size=6), start=moments, end=moments)
async def test_any_bookings_are_counted_in_any_window(times, start, end):
    tenant = await in_thread(make_tenant)
    processors = [await in_thread(make_processor, tenant, name) for name in ("default", "fallback")]
    await settle(tenant, processors, times)

    found = await summary.summary(tenant_id=tenant.pk, start=start, end=end)

    assert found == await counted(tenant, start, end)
    assert sum(one["totalRequests"] for one in found.values()) == sum(start <= at <= end for at in times)


async def ask(api: Api, **window: str) -> dict[str, Any]:
    async with api.get("/payments-summary", params=window) as response:
        assert response.status == 200, await response.text()
        return msgspec.json.decode(await response.read(), type=dict[str, dict[str, Decimal]])


async def test_both_ends_of_the_window_are_included_to_the_millisecond(api: Api, tenant):
    processor = await in_thread(make_processor, tenant, "default")
    await settle(tenant, [processor], [NOON + timedelta(milliseconds=n) for n in (122, 123, 124, 455, 456, 457)])

    found = await ask(api, **{"from": "2025-07-15T12:00:00.123Z", "to": "2025-07-15T09:00:00.456-03:00"})

    assert found == {"default": {"totalRequests": 4, "totalAmount": Decimal("4.10")}}


@pytest.mark.parametrize("start", ["2025-07-15T12:00:00Z", "2025-07-15T12:00:00", "2025-07-15T13:00:00+01:00"])
async def test_a_time_is_read_with_or_without_a_zone(api: Api, tenant, start):
    processor = await in_thread(make_processor, tenant, "default")
    await settle(tenant, [processor], [NOON + timedelta(milliseconds=-1), NOON])
    path = f"/payments-summary?from={start}"  # a plus that nobody encoded

    async with api.get(path) as response:
        assert (await response.json())["default"]["totalRequests"] == 1


async def test_amounts_are_numbers_and_processors_without_bookings_are_named(api: Api, tenant):
    one, _ = [await in_thread(make_processor, tenant, name) for name in ("default", "fallback")]
    await settle(tenant, [one], [NOON] * 3)

    async with api.get("/payments-summary") as response:
        text = await response.text()

    assert '"default":{"totalRequests":3,"totalAmount":3.03}' in text
    assert '"fallback":{"totalRequests":0' in text


async def test_each_currency_is_counted_separately(api: Api, tenant):
    processor = await in_thread(make_processor, tenant, "default")
    await settle(tenant, [processor], [NOON] * 2)
    await settle(tenant, [processor], [NOON] * 3, currency="JPY")

    assert (await ask(api, currency="BRL"))["default"] == {"totalRequests": 2, "totalAmount": Decimal("2.01")}
    assert (await ask(api, currency="JPY"))["default"] == {"totalRequests": 3, "totalAmount": Decimal(303)}


async def test_only_what_was_booked_counts(api: Api, tenant, default):
    default.fails()
    await api.pay()
    async with at_work():
        await eventually(lambda: default.received)

    assert (await ask(api))["default"]["totalRequests"] == 0


async def test_the_summary_agrees_with_the_bookings_of_the_processors(api: Api, default, fallback):
    for n in range(20):
        await api.pay(f"{n + 1}.37")
        if n % 4 == 3:  # in several claims: those of one share requestedAt
            await settle_due()
    times = sorted(booking.requested_at for books in (default, fallback) for booking in books.booked.values())

    for start, end in ((times[0], times[-1]), (times[3], times[12]), (times[5], times[5])):
        found = await ask(api, **{"from": start.isoformat(), "to": end.isoformat()})
        for name, books in (("default", default), ("fallback", fallback)):
            number, amount = books.books.summary(start, end)
            assert found[name] == {"totalRequests": number, "totalAmount": Decimal(amount) / 100}


async def test_purged_payments_are_not_counted_and_later_ones_are(api: Api, booked: Tenant):
    async with api.post("/purge-payments") as response:
        assert response.status == 200
    processor = await in_thread(lambda: Processor.objects.get(tenant=booked, name="default"))
    await settle(booked, [processor], [NOON, NOON + timedelta(hours=1)])

    found = await ask(api, **{"from": NOON.isoformat()})

    assert found["default"] == {"totalRequests": 2, "totalAmount": Decimal("2.01")}
    assert found["fallback"]["totalRequests"] == 0


async def test_other_tenants_are_not_counted(server: str, booked: Tenant):
    other = await in_thread(make_tenant)
    await in_thread(make_processor, other, "default")
    async with Api(server, await make_key(other)) as stranger:
        assert await ask(stranger) == {"default": {"totalRequests": 0, "totalAmount": 0}}


async def test_without_the_database_the_summary_is_an_error_and_not_zeros(api: Api, booked: Tenant):
    """A table is not there, so the question cannot be answered: the caller hears of it."""

    def out_of_the_way(name: str, other: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {name} RENAME TO {other}")

    await in_thread(out_of_the_way, "payments_rollup", "payments_rollup_away")
    try:
        async with api.get("/payments-summary") as response:
            status, kind, said = response.status, response.content_type, await response.json(content_type=None)
    finally:
        await in_thread(out_of_the_way, "payments_rollup_away", "payments_rollup")

    assert (status, kind) == (503, "application/problem+json")
    assert "totalRequests" not in str(said)
