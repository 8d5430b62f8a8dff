"""An attempt is stored before it is sent, with its processor, its time and the reason of the choice."""

from uuid import UUID

import pytest

from payments.settle import doubts
from registry.data import database
from tests.bed import HttpProcessor
from tests.bed.books import read_order
from tests.conftest import eventually
from tests.factories import in_thread, make_processor
from tests.settling import Try, accept, payment, settle_all, tries, until_settled


class Witness(HttpProcessor):
    """A processor that looks into our database at the moment it receives a payment."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Try] = []
        self.states: list[tuple] = []
        self.told: list[UUID] = []

    async def take(self, body: bytes) -> bytes:
        one = UUID(read_order(body).correlation_id)
        self.found.append((await tries(one))[-1])
        state = "SELECT status, attempt, lease_id IS NOT NULL, leased_until > now() FROM payments_payment WHERE correlation_id = %s"
        self.states += await database.fetch(state, [one])
        return super().take(body)


@pytest.fixture
async def witness(tenant):
    async with Witness() as processor:
        await in_thread(make_processor, tenant, "witness", kind="http", url=processor.url)
        yield processor


async def test_an_attempt_is_stored_before_it_is_sent(tenant, witness):
    ids = await accept(tenant, 20)
    settled = await settle_all(tenant)

    assert len(witness.found) == len(witness.requests) == len(ids)
    for written in witness.found:
        assert (written.number, written.processor, written.outcome, written.latency_ms) == (1, "witness", "", None)
        assert written.reason == "cheapest, 5 % fee"
    assert {a.requested_at for a in witness.found} == {r.requested_at for r in witness.requests}
    assert {row.requested_at for row in settled} == {r.requested_at for r in witness.requests}
    assert set(witness.states) == {("processing", 1, True, True)}


async def test_a_repeat_is_stored_too_with_the_time_of_the_first_attempt(tenant, witness, monkeypatch):
    monkeypatch.setattr(doubts, "REPEAT_AFTER", 0.0)
    witness.resets_connections(times=1, books=False)

    [one] = await accept(tenant)
    await settle_all(tenant)

    first, second = witness.found
    assert (first.number, second.number) == (1, 2)
    assert first.requested_at == second.requested_at == witness.booked[str(one)].requested_at
    assert second.reason == "same processor: the outcome of an earlier send is unknown"
    assert witness.states == [("processing", 1, True, True), ("uncertain", 2, True, True)]


async def test_an_attempt_after_a_certain_refusal_has_its_own_time(tenant, witness):
    witness.answers(500, times=2)

    [one] = await accept(tenant)
    await settle_all(tenant)

    made = await tries(one)
    assert [(a.number, a.outcome) for a in made] == [(1, "not_booked"), (2, "not_booked"), (3, "booked")]
    assert len({a.requested_at for a in made}) == 3
    assert all(a.latency_ms is not None for a in made)


async def test_a_payment_whose_attempt_cannot_be_stored_is_not_sent(tenant, quick, worker, witness):
    await database.fetch("CREATE SEQUENCE refused_attempts")
    no_more = "CHECK (number < 0 * nextval('refused_attempts')) NOT VALID"
    await database.fetch(f"ALTER TABLE payments_attempt ADD CONSTRAINT no_more {no_more}")
    try:
        [one] = await accept(tenant)
        refused = await eventually(lambda: _rolled_back(one))
    finally:
        await database.fetch("ALTER TABLE payments_attempt DROP CONSTRAINT no_more")
        await database.fetch("DROP SEQUENCE refused_attempts")
    received = list(witness.received)
    await until_settled(tenant)

    assert refused
    assert not received
    assert (await payment(tenant, one)).attempt == 1


async def _rolled_back(one: UUID) -> bool:
    """An attempt was refused, which a sequence remembers, and its row is not there."""
    drawn = "SELECT last_value, is_called FROM refused_attempts"
    before = await database.fetch(drawn)
    await eventually(lambda: _differs(drawn, before))
    return not await tries(one)


async def _differs(sql: str, before: list) -> bool:
    return await database.fetch(sql) != before
