"""Figures of the home: counted by settling, kept by minute and by hour, and equal to what the payments themselves say."""

import math
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import pytest

from payments.books import figures, purge
from payments.books.figures import RANGES, Times, past, unfinished
from payments.models import Attempt, AttemptRollup, LedgerEntry, Payment, Processor
from payments.models.statistics import BUCKETS, HOUR, MINUTE
from payments.refunds import refunds
from payments.states import FAILED, SUCCEEDED
from registry.models import Tenant
from tests.factories import in_thread, make_payment, make_processor
from tests.history import bucket_of, make_history
from tests.payments.refunding import booked, pay_back
from tests.settling import accept, configure, count, settle_all, settle_due, settle_until

NOW = datetime(2026, 6, 15, 12, 34, 56, tzinfo=UTC)


@pytest.fixture
async def sandbox(tenant: Tenant) -> Processor:
    return await in_thread(make_processor, tenant, "default", fee="0.05")


async def rows(tenant: Tenant, width: int) -> list[AttemptRollup]:
    return [row async for row in AttemptRollup.async_objects.filter(tenant=tenant, width=width)]


# -- What settling counts ------------------------------------------------------------------------------------


async def test_settling_counts_each_attempt_by_state_with_its_response_time(tenant, default, fallback):
    default.fails(times=2)
    await accept(tenant, 4)
    await settle_all(tenant)
    default.answers(402)
    await accept(tenant, 3)
    await settle_until(tenant, lambda: count(tenant, "failed"))

    attempts = [one async for one in Attempt.async_objects.filter(tenant=tenant)]
    by_processor = Counter(one.processor_id for one in attempts)
    ended = {p.pk: p.status async for p in Payment.async_objects.filter(tenant=tenant)}
    for width in (MINUTE, HOUR):
        counted = await rows(tenant, width)
        assert sum(row.attempts for row in counted) == len(attempts)
        assert sum(row.latency_ms for row in counted) == sum(one.latency_ms or 0 for one in attempts)
        assert sum(row.answers for row in counted) == sum(one.latency_ms is not None for one in attempts)
        for number, sent in by_processor.items():
            assert sum(row.attempts for row in counted if row.processor_id == number) == sent
        for status in (SUCCEEDED, FAILED):
            assert sum(row.attempts for row in counted if row.status == status) == Counter(ended.values())[status]


async def test_the_time_to_settle_is_counted_from_acceptance_or_from_the_time_of_a_scheduled_payment(tenant, sandbox):
    await accept(tenant, 3)
    [late] = await accept(tenant)
    now = datetime.now(UTC)
    await Payment.async_objects.filter(correlation_id=late).aupdate(
        created_at=now - timedelta(days=9), scheduled_for=now - timedelta(seconds=40), run_at=now
    )
    await settle_all(tenant)

    took = [
        one.changed_at - max(one.created_at, one.scheduled_for or one.created_at)
        async for one in Payment.async_objects.filter(tenant=tenant)
    ]
    buckets = Counter(bucket_of(1000 * one.total_seconds()) for one in took)
    assert {row.bucket: row.attempts for row in await rows(tenant, HOUR)} == buckets
    assert max(buckets) == bucket_of(40_000)


async def test_a_time_beyond_all_buckets_is_in_the_last_one(tenant, sandbox):
    await accept(tenant)
    await Payment.async_objects.filter(tenant=tenant).aupdate(created_at=NOW - timedelta(days=400))
    await settle_all(tenant)

    assert [row.bucket for row in await rows(tenant, MINUTE)] == [BUCKETS - 1]


# -- Unfinished ----------------------------------------------------------------------------------------------


async def test_everything_unfinished_is_counted_and_aged_from_acceptance_whenever_it_is_due(tenant, sandbox):
    now = datetime.now(UTC)
    for fields in (
        {"run_at": now},
        {"run_at": now - timedelta(seconds=1), "created_at": now - timedelta(seconds=5)},
        {"run_at": now + timedelta(seconds=30), "created_at": now - timedelta(seconds=100)},  # no processor was available
        {"status": "uncertain", "run_at": now + timedelta(seconds=9), "created_at": now - timedelta(seconds=20)},
        {"status": "processing", "leased_until": now + timedelta(seconds=9), "lease_id": 7},
        {"scheduled_for": now + timedelta(days=1), "run_at": now + timedelta(days=1), "created_at": now - timedelta(days=1)},
        {"status": "uncertain", "run_at": datetime(9999, 12, 31, tzinfo=UTC), "created_at": now - timedelta(days=3)},
        {"status": "requires_action", "created_at": now - timedelta(days=2)},
        {"status": "succeeded"},
        {"status": "failed"},
    ):  # fmt: skip
        await in_thread(make_payment, tenant, **fields)

    found = await unfinished(tenant.pk)

    assert (found.in_progress, found.due, found.retrying, found.scheduled, found.given_up) == (1, 2, 2, 1, 1)
    assert (found.waiting, found.with_payer) == (5, 1)
    assert 100 <= found.oldest < 130


async def test_during_a_total_outage_all_queued_payments_are_counted(tenant, sandbox):
    await configure(tenant, "default", enabled=False)
    await accept(tenant, 30)
    await settle_due()  # nothing can be sent: all are put off
    await accept(tenant, 7)
    accepted_at = [p.created_at async for p in Payment.async_objects.filter(tenant=tenant)]

    found = await unfinished(tenant.pk)

    age = (datetime.now(UTC) - min(accepted_at)).total_seconds()
    assert (found.due, found.retrying, found.waiting) == (7, 30, 37)
    assert found.oldest == pytest.approx(age, abs=1)


async def test_of_a_long_queue_only_the_first_are_counted_and_there_are_said_to_be_more(tenant, sandbox, monkeypatch):
    monkeypatch.setattr(figures, "COUNTED", 5)
    await accept(tenant, 4)
    whole = await unfinished(tenant.pk)
    await accept(tenant, 3)

    part = await unfinished(tenant.pk)

    assert (whole.due, whole.more, part.due, part.more) == (4, False, 5, True)


# -- Ranges --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "start"),
    [
        ("1h", datetime(2026, 6, 15, 11, 34, tzinfo=UTC)),
        ("24h", datetime(2026, 6, 14, 12, tzinfo=UTC)),
        ("7d", datetime(2026, 6, 8, 12, tzinfo=UTC)),
        ("30d", datetime(2026, 5, 16, 12, tzinfo=UTC)),
    ],
)
async def test_a_range_counts_from_a_whole_minute_or_hour_on_and_nothing_before(tenant, sandbox, key, start):
    for at, amount in ((start - timedelta(seconds=1), 10), (start, 200), (NOW, 3000)):
        await in_thread(make_history, sandbox, at, succeeded=1, failed=1, amount=amount)

    found = await past(tenant.pk, RANGES[key], NOW)

    assert found["volumes"] == {"BRL": (2, 3200)}
    assert (found["succeeded"], found["failed"], found["successRate"]) == (2, 2, 0.5)
    assert sum(found["series"]["succeeded"]) == sum(found["series"]["failed"]) == 2


async def test_volume_success_and_balance_are_those_of_the_payments(tenant, sandbox):
    for currency, amounts in (("BRL", (1990, 10)), ("JPY", (500,)), ("KWD", (12345,))):
        for amount in amounts:
            await accept(tenant, amount=amount, currency=currency)
    await settle_all(tenant)
    [refunded] = await booked(tenant, amount=1000)
    await refunds.refund(tenant_id=tenant.pk, correlation_id=refunded, amount=300)
    await pay_back(refunded, "returned")

    found = await past(tenant.pk, RANGES["1h"])

    volumes: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    async for one in Payment.async_objects.filter(tenant=tenant, status="succeeded"):
        number, total = volumes[one.currency]
        volumes[one.currency] = number + 1, total + one.amount
    owed: dict[str, int] = Counter()
    async for line in LedgerEntry.async_objects.filter(tenant=tenant, account="balance"):
        owed[line.currency] -= line.amount
    assert found["volumes"] == dict(volumes)
    assert found["balance"] == dict(owed)
    assert found["succeeded"] == sum(number for number, _ in volumes.values())


async def test_there_is_no_success_rate_and_no_time_without_payments(tenant, sandbox):
    found = await past(tenant.pk, RANGES["24h"])

    assert (found["successRate"], found["times"], found["volumes"]) == (None, {}, {})
    assert set(found["series"]["succeeded"]) == {0}


async def test_times_to_settle_are_those_of_each_processor_and_of_all(tenant, sandbox):
    other = await in_thread(make_processor, tenant, "fallback", fee="0.15")
    for processor, took, many in ((sandbox, 40, 90), (sandbox, 400, 10), (other, 2000, 100)):
        await in_thread(make_history, processor, NOW, succeeded=many, settled_in=took)
    await in_thread(make_history, sandbox, NOW, failed=1000, settled_in=90_000)

    times = (await past(tenant.pk, RANGES["1h"], NOW))["times"]

    for number, p50, p95 in ((sandbox.pk, 40, 400), (other.pk, 2000, 2000), (None, 400, 2000)):
        assert times[number]["p50"] == pytest.approx(p50, rel=0.19)
        assert times[number]["p95"] == pytest.approx(p95, rel=0.19)


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_percentile_is_within_a_bucket_of_the_exact_one(share: float):
    exact = [1.07**n for n in range(1, 200)]
    times = Times(Counter(bucket_of(one) for one in exact))

    assert times.percentile(share) == pytest.approx(exact[math.ceil(share * len(exact)) - 1], rel=0.19)


async def test_the_charts_have_every_point_and_the_average_response_time_of_each_processor(tenant, sandbox):
    other = await in_thread(make_processor, tenant, "fallback")
    before = NOW - timedelta(minutes=5)
    await in_thread(make_history, sandbox, before, succeeded=3, failed=1, latency=10)
    await in_thread(make_history, sandbox, before, succeeded=4, latency=90)
    await in_thread(make_history, other, NOW, succeeded=2, latency=7)

    series = (await past(tenant.pk, RANGES["1h"], NOW))["series"]

    at = dict(zip(series["at"], zip(series["succeeded"], series["failed"], strict=True), strict=True))
    moment = int(before.timestamp()) // 60 * 60
    assert series["at"] == list(range(series["at"][0], series["at"][0] + 61 * 60, 60))
    assert (at.pop(moment), at.pop(int(NOW.timestamp()) // 60 * 60), set(at.values())) == ((7, 1), (2, 0), {(0, 0)})
    place = series["at"].index(moment)
    assert series["response"][sandbox.pk][place] == (4 * 10 + 4 * 90) / 8
    assert [one for one in series["response"][other.pk] if one is not None] == [7]


# -- Retention -----------------------------------------------------------------------------------------------


async def test_statistics_are_kept_as_long_as_a_range_shows_them(tenant, sandbox):
    now = datetime.now(UTC)
    for age in (timedelta(hours=1), timedelta(days=3), timedelta(days=29), timedelta(days=40)):
        await in_thread(make_history, sandbox, now - age, succeeded=1)

    removed = await figures.trim()

    kept = [len(await rows(tenant, width)) for width in (MINUTE, HOUR)]
    assert (removed, kept) == (4, [1, 3])
    assert await figures.trim() == 0


async def test_an_emptied_sandbox_has_no_figures(tenant, sandbox):
    await accept(tenant, 2)
    await settle_all(tenant)

    await purge.purge(tenant_id=tenant.pk)

    found = await past(tenant.pk, RANGES["24h"])
    assert (found["volumes"], found["succeeded"], found["balance"]) == ({}, 0, {})
    assert await rows(tenant, HOUR) == []
