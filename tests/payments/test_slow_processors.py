"""Slow processors in a simulation: they hold few slots and few payments, compared with an oracle."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payments.processors.base import Health
from payments.settle.concurrency import Slots
from tests.depth import deep
from tests.payments.simulation import GIVES_UP, Bed, Phase, Played

FEES = [0.07, 0.10]
RATE = deep(200, 500)  # payments per second


def silent(phase: Phase) -> None:
    """Its health call never answers."""


def lies(phase: Phase) -> Health:
    return Health(False, 0)


def truth(phase: Phase) -> Health:
    return Health(phase.fails, int(phase.delay))


SAYS = pytest.mark.parametrize("says", [truth, silent, lies])


def bed(default: list[Phase], fallback: list[Phase] | None = None, *, says=truth, rate: float = RATE, **options) -> Bed:
    processors = [Played("default", default, says), Played("fallback", fallback or [Phase(0)])]
    return Bed(processors, FEES, options.pop("tenants", {1: rate}), **options)


@SAYS
def test_when_the_cheaper_processor_becomes_slow_it_gets_at_most_half_a_second_of_payments(says):
    played = bed([Phase(0), Phase(4, 2000)], says=says, seconds=9).run()

    assert len(played.sent_to("default", 4, 9)) <= RATE * 0.5
    assert not played.booked_twice()
    assert not played.open
    others = [sale for sale in played.sales if sale.first == "fallback"]
    assert max(sale.sent_at - sale.at for sale in others) <= 0.3


@SAYS
def test_fees_are_nearly_those_of_an_oracle(says):
    played = bed([Phase(0), Phase(20, 2000), Phase(40)], says=says, seconds=60, rate=deep(100, 200)).run()

    assert played.fees_paid() == pytest.approx(played.fees_of_the_oracle(), rel=0.03)
    assert not played.booked_twice()


def test_a_processor_that_reports_to_be_slow_gets_no_payments():
    played = bed([Phase(0), Phase(3, 2000)], seconds=25).run()
    said = 3 + 5.05  # a poll has asked it by then

    assert not played.sent_to("default", said + 0.1, 25)


@SAYS
def test_a_processor_that_is_slow_from_the_start_is_detected(says):
    played = bed([Phase(0, 2000)], says=says, seconds=20).run()

    assert len(played.sent_to("default", 0, 20)) <= RATE * 0.5
    assert not played.open


def test_a_delay_within_the_patience_moves_few_payments():
    played = bed([Phase(0), Phase(5, 200)], seconds=15).run()

    assert len(played.sent_to("fallback", 5, 15)) <= RATE * 0.25


def test_a_patient_tenant_keeps_the_cheap_processor():
    played = bed([Phase(0), Phase(5, 1000)], seconds=15, rate=100, patience=3000).run()

    assert len(played.sent_to("fallback", 0, 15)) <= 100


def test_when_both_are_slow_payments_go_to_the_faster_and_everything_settles():
    slow = [Phase(0), Phase(4, 3000), Phase(12)]
    played = bed(slow, [Phase(0), Phase(4, 800), Phase(12)], rate=100, seconds=16).run()

    assert len(played.sent_to("default", 6, 11)) < len(played.sent_to("fallback", 6, 11)) / 4
    assert not played.open


@SAYS
@pytest.mark.parametrize("first", ["default", "fallback"])
def test_while_all_are_slow_recovery_of_one_is_detected(first, says):
    """The others have no payments that would tell: some are sent to see."""
    processors = [
        Played(name, [Phase(0), Phase(3, 3000), Phase(8)] if name == first else [Phase(0), Phase(3, 900)], says)
        for name in ("default", "fallback")
    ]
    played = Bed(processors, FEES, {1: 100.0}, 20).run()

    assert len(played.sent_to(first, 14, 20)) > 0.95 * 6 * 100


def test_a_failing_processor_is_avoided_and_used_again_after_its_recovery():
    played = bed([Phase(0), Phase(5, 5, True), Phase(15)], seconds=30).run()

    assert not played.open and not played.booked_twice()
    assert len(played.sent_to("default", 5.5, 15)) <= 10
    assert not played.sent_to("fallback", 15 + 5.05 + 0.5, 30)


def test_the_dearer_processor_is_used_although_it_failed_while_it_was_not_needed():
    """Its breaker opened long ago, and no payment was its probe since."""
    default = [Phase(0), Phase(2, 5, True), Phase(9), Phase(30, 2000)]
    played = bed(default, [Phase(0), Phase(3, 5, True), Phase(8)], seconds=40).run()

    assert len(played.sent_to("default", 30, 40)) <= RATE * 0.5
    late = [sale for sale in played.sales if sale.at > 31]
    assert sum(sale.done_at - sale.at > 0.3 for sale in late) < len(late) / 100  # probes


@SAYS
def test_tenants_that_share_a_processor_learn_from_one_another(says):
    tenants = dict.fromkeys(range(1, 21), RATE / 20)
    played = bed([Phase(0), Phase(4, 2000), Phase(14)], says=says, tenants=tenants, seconds=24).run()

    assert len(played.sent_to("default", 4, 5)) <= RATE * 0.5
    assert not played.booked_twice()
    assert len(played.sent_to("default", 20, 24)) > 0.9 * 4 * RATE


def test_one_tenants_slow_payments_move_no_other_tenant():
    default = Played("default", [Phase(0)], spoils=lambda sale: 3000.0 if sale.tenant == 1 else None)
    played = Bed([default, Played("fallback", [Phase(0)])], FEES, {1: 100.0, 2: 100.0, 3: 1.0}, 15).run(until=30)

    assert {sale.first for sale in played.sales if sale.tenant > 1} == {"default"}
    assert max(sale.sent_at - sale.at for sale in played.sales if sale.tenant > 1) <= 0.3


@SAYS
def test_a_few_payments_are_enough_to_learn_from(says):
    played = bed([Phase(0), Phase(60, 2000), Phase(120)], says=says, rate=2.0, seconds=180).run()

    assert len(played.sent_to("default", 60, 120)) <= 120 * 0.25
    assert played.fees_paid() == pytest.approx(played.fees_of_the_oracle(), rel=0.03)


# -- Timetables that nobody thought of -------------------------------------------------------------------------

PHASES = st.lists(
    st.builds(Phase, st.floats(0.5, 14), st.sampled_from([1, 20, 150, 400, 1000, 2500, 7000]), st.booleans()),
    max_size=5,
)


@settings(max_examples=deep(10, 250), deadline=None)
@given(PHASES, PHASES, st.sampled_from([truth, silent, lies]), st.sampled_from([3.0, 40.0, 150.0]), st.integers(1, 3))
def test_every_payment_is_booked_once_in_any_scenario(default, fallback, says, rate, tenants):
    def timetable(phases: list[Phase]) -> list[Phase]:
        return [Phase(0), *sorted(phases, key=lambda phase: phase.at), Phase(15)]

    played = bed(
        timetable(default), timetable(fallback), says=says, seconds=20, seed=7,
        tenants=dict.fromkeys(range(1, tenants + 1), rate / tenants),
    ).run()  # fmt: skip

    assert not played.open
    assert not played.booked_twice()
    assert {sale.id for sale in played.sales} == set.union(*(one.booked for one in played.processors))
    late = [sale for sale in played.sales if sale.at > 16 + GIVES_UP]
    assert all(sale.done_at - sale.at < 1 for sale in late)


@pytest.mark.parametrize("seed", range(3))
def test_where_phases_last_longer_than_a_poll_fees_stay_near_the_oracles(seed):
    chance = random.Random(seed)
    default = [Phase(0)] + [Phase(25 * n, chance.choice([5, 50, 700, 2000, 4000])) for n in range(1, 5)]

    played = bed(default, rate=deep(50, 100), seconds=125, seed=seed).run()

    assert played.fees_paid() == pytest.approx(played.fees_of_the_oracle(), rel=0.04)


def test_a_patient_tenant_with_one_processor_waits_no_longer_than_necessary_for_a_slot():
    only = Played("only", [Phase(0, 2000), Phase(5)])
    played = Bed([only], [0.07], {1: 60.0}, 10, patience=60_000, slots=40).run()

    assert not played.open
    assert max(sale.done_at for sale in played.sales if sale.at < 5) < 5 + 2 + 5


# -- Slots ----------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from("abcd"), st.booleans()), max_size=400))
def test_no_more_slots_are_held_than_are_free(moves):
    slots, held = Slots(60, 40), []
    for tenant, endpoint, takes in moves:
        if takes and slots.free(tenant, endpoint):
            slots.acquire(tenant, endpoint)
            held.append((tenant, endpoint))
            of_endpoint = sum(one[1] == endpoint for one in held)
            assert of_endpoint <= 60 - len(held) + 1
        elif held and not takes:
            slots.release(*held.pop())

    free = 60 - len(held)
    assert free > 0
    assert slots.free(99, "a new one") == (min(free, 40) + 1) // 2


def test_a_slow_processor_leaves_room_for_the_others_of_its_tenant_and_of_other_tenants():
    slots = Slots(800, 600)
    for tenant in (1, 2, 3):
        while slots.free(tenant, "slow"):
            slots.acquire(tenant, "slow")

    assert slots.free(1, "fast") > 100
    assert slots.free(4, "other") > 100
