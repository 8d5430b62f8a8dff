"""How long a payment waits between its tries."""

from datetime import timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from payments.dispatch import FIRST_BACKOFF, LONGEST_BACKOFF, backoff
from tests.settling import accept, tries, until_settled


@given(st.integers(1, 10_000))
def test_the_wait_doubles_up_to_a_limit_and_its_upper_half_is_at_random(number):
    full = min(FIRST_BACKOFF * 2.0 ** min(number - 1, 60), LONGEST_BACKOFF)

    assert full / 2 <= backoff(number) <= full


@given(st.integers(1, 300))
def test_payments_that_failed_together_do_not_come_back_together(number):
    waits = {backoff(number) for _ in range(20)}

    assert len(waits) > 15


async def test_tries_at_a_processor_that_fails_are_further_and_further_apart(tenant, worker, default):
    default.answers(500, times=3)

    [one] = await accept(tenant)
    await until_settled(tenant)

    starts = [a.started_at for a in await tries(one)]
    waits = [later - earlier for earlier, later in pairwise(starts)]
    assert [wait >= timedelta(seconds=least) for wait, least in zip(waits, (0.05, 0.1, 0.2), strict=True)] == [True] * 3
