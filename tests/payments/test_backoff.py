"""Delays between the attempts of a payment."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from payments.settle.decisions import FIRST_BACKOFF, LONGEST_BACKOFF, backoff
from payments.settle.work import NO_ROUTE, PaymentWork
from registry.data import database
from tests.settling import accept, opened, payment, seed, settle_due, skip_pauses, tries


@given(st.integers(1, 10_000))
def test_the_wait_doubles_up_to_a_limit_and_its_upper_half_is_at_random(number):
    full = min(FIRST_BACKOFF * 2.0 ** min(number - 1, 60), LONGEST_BACKOFF)

    assert full / 2 <= backoff(number) <= full


@given(st.integers(1, 300))
def test_payments_that_failed_together_are_not_retried_together(number):
    waits = {backoff(number) for _ in range(20)}

    assert len(waits) > 15


async def test_delays_between_attempts_at_a_failing_processor_grow(tenant, default):
    default.answers(500, times=3)
    [one] = await accept(tenant)
    due = []

    async with opened(PaymentWork()) as work:
        for _ in range(3):
            await settle_due(work)
            due.append((await payment(tenant, one)).run_at)
            await skip_pauses(tenant)
        await settle_due(work)

    made = await tries(one)
    waits = [at - a.started_at for at, a in zip(due, made, strict=False)]
    assert [wait >= timedelta(seconds=least) for wait, least in zip(waits, (0.05, 0.1, 0.2), strict=True)] == [True] * 3
    assert [a.outcome for a in made] == [*["not_booked"] * 3, "booked"]


async def test_payments_that_waited_long_for_a_processor_are_claimed_less_often(tenant, default):
    """After an eighth of the time that it has waited, and never later than half a minute."""
    ages = {0: NO_ROUTE, 80: 10, 160: 20, 3600: 30}
    for age in ages:
        await seed(tenant, 1, wanted="nobody")
        await database.fetch(
            "UPDATE payments_payment SET created_at = now() - make_interval(secs => %s) WHERE id = "
            "(SELECT max(id) FROM payments_payment)",
            [float(age)],
        )
    work = PaymentWork()

    claimed = await work.claim(1, 10)
    waits = await database.fetch(
        "SELECT extract(epoch FROM run_at - now())::float8 FROM payments_payment WHERE tenant_id = %s ORDER BY id",
        [tenant.pk],
    )
    await work.close()

    assert not claimed
    for [wait], expected in zip(waits, ages.values(), strict=True):
        assert expected * 0.9 < wait + 0.1 < expected * 1.1 + 0.1
