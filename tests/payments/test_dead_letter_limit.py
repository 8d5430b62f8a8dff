"""Limits of attempts and look-ups: permanent declines fail at once, others become dead letters, and no payment is booked twice."""

import pytest

from payments.models import DeadLetter
from payments.settle import dead_letters, decisions
from payments.states import FAILED, UNCERTAIN
from registry.data import database
from tests.conftest import Api
from tests.settling import accept, payment, settle_all, settle_until, tries


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(decisions, "MAX_ATTEMPTS", 3)
    monkeypatch.setattr(decisions, "MAX_QUESTIONS", 4)


async def letters(tenant) -> list[DeadLetter]:
    try:
        return [letter async for letter in DeadLetter.async_objects.filter(tenant=tenant).order_by("id")]
    finally:
        await database.release()


async def test_a_permanent_decline_fails_without_another_try(tenant, default, fallback):
    default.answers(402)

    [one] = await accept(tenant)
    [failed] = await settle_all(tenant, FAILED)

    assert failed.code == "http_402"
    assert (len(default.received), len(fallback.received)) == (1, 0)
    assert [a.outcome for a in await tries(one)] == ["declined"]
    assert not await letters(tenant)


async def test_after_the_last_attempt_a_payment_fails_and_is_a_dead_letter(tenant, default):
    default.answers(401)

    [one] = await accept(tenant)
    [failed] = await settle_all(tenant, FAILED)

    [letter] = await letters(tenant)
    assert len(default.received) == 3
    assert [a.outcome for a in await tries(one)] == ["not_booked"] * 3
    assert (letter.payment_id, letter.code, letter.resolution) == (failed.id, "http_401", "")
    assert letter.detail == "Gave up after 3 attempts (http_401)"


async def test_a_dead_letter_that_is_replayed_settles(tenant, default):
    default.answers(401)
    [one] = await accept(tenant)
    await settle_all(tenant, FAILED)
    [letter] = await letters(tenant)
    default.recovers()

    replayed = await dead_letters.replay(dead_letter_id=letter.pk, actor="olga", reason="the key was renewed")
    [settled] = await settle_all(tenant)

    assert replayed
    assert settled.attempt == 4
    assert [a.outcome for a in await tries(one)] == [*["not_booked"] * 3, "booked"]


async def test_after_the_last_look_up_a_payment_stays_uncertain_and_is_sent_to_no_other_processor(
    tenant, api: Api, default, fallback
):
    default.resets_connections(books=False)
    default.lookups_answer(500)

    [one] = await accept(tenant)
    await settle_until(tenant, lambda: letters(tenant))
    in_doubt = await payment(tenant, one)
    shown = await api.detail(str(one))

    assert (in_doubt.status, in_doubt.lease_id, in_doubt.attempt) == (UNCERTAIN, None, 4)
    assert in_doubt.run_at.year == 9999
    assert len(await letters(tenant)) == 1
    assert shown["status"] == "uncertain"
    assert not fallback.received


async def test_a_replayed_uncertain_payment_is_looked_up_where_it_was_sent(tenant, default, fallback):
    default.resets_connections()
    default.lookups_answer(500)
    [one] = await accept(tenant)
    [letter] = await settle_until(tenant, lambda: letters(tenant))
    default.recovers()

    await dead_letters.replay(dead_letter_id=letter.pk, actor="olga", reason="they say it is booked")
    [settled] = await settle_all(tenant)

    assert settled.processor == "default"
    assert (await tries(one))[-1].code == "looked_up"
    assert not fallback.received


async def test_a_replayed_payment_has_all_attempts_again(api: Api, tenant, default):
    default.answers(401)
    refused = await api.pay()
    await settle_all(tenant, FAILED)
    [letter] = await letters(tenant)

    async with database.own_connection():
        await dead_letters.replay(dead_letter_id=letter.pk, actor="olga", reason="their outage is over")
    await settle_until(tenant, lambda: second_letter(tenant))

    found = await api.detail(refused["correlationId"])
    assert (found["status"], len(found["attempts"])) == (FAILED, 2 * decisions.MAX_ATTEMPTS)


async def second_letter(tenant) -> bool:
    return len(await letters(tenant)) == 2


async def test_an_outage_is_waited_for_beyond_the_limit_of_attempts(tenant, default):
    default.overloads(retry_after=0)
    [one] = await accept(tenant)
    await settle_until(tenant, lambda: tried_beyond_the_limit(one))
    during = await letters(tenant)

    default.recovers()
    [settled] = await settle_all(tenant)

    assert not during
    assert settled.attempt > decisions.MAX_ATTEMPTS + 1
    assert {a.code for a in (await tries(one))[:-1]} == {"http_429"}


async def tried_beyond_the_limit(one) -> bool:
    return len(await tries(one)) > decisions.MAX_ATTEMPTS + 1


async def test_after_the_longest_outage_a_payment_is_given_up_as_a_dead_letter(tenant, default):
    default.overloads(retry_after=0)
    [one] = await accept(tenant)
    await settle_until(tenant, lambda: tried_beyond_the_limit(one))
    patient = await letters(tenant)

    await _age(tenant, decisions.GIVE_UP_AFTER)
    [failed] = await settle_all(tenant, FAILED)

    [letter] = await letters(tenant)
    assert not patient
    assert (letter.payment_id, letter.code) == (failed.id, "http_429")
    assert letter.detail == f"Gave up after {len(await tries(one))} attempts (http_429)"


async def _age(tenant, by) -> None:
    """As if its payments had been accepted so much earlier."""
    await database.fetch(
        "UPDATE payments_payment SET created_at = created_at - %s WHERE tenant_id = %s", [by, tenant.pk]
    )
