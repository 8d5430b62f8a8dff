"""Statements about many payments compare each row with the few it belongs to, not each with every other."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from payments.intake import store
from payments.settle import work
from registry.data.arrays import Bigints, Blobs, Texts, Uuids, unless_empty
from tests.plans import Bed, compared_by, rows_of, undone, uuid_of

PAYMENTS = 500
FIRST = 800_000  # tenants are FIRST + n, or all payments are of the first one
TABLES = [
    f"payments_{name}"
    for name in ("payment", "attempt", "attemptrollup", "paymentevent", "ledgerentry", "rollup", "deadletter", "stream")
]
SEED = """
SELECT setval(pg_get_serial_sequence('payments_payment', 'id'), 1000000);
INSERT INTO registry_tenant (id, slug, name, currency, status, mode, open, settings)
SELECT %(first)s + n, 'joins-' || n, '', 'BRL', 'active', 'sandbox', false, '{}' FROM generate_series(1, %(payments)s) n;
INSERT INTO payments_payment (tenant_id, id, correlation_id, fingerprint, amount, currency, description, wanted_processor, status,
    sequence, code, refunded, attempt, priority, lease_id, leased_until, created_at, changed_at)
SELECT %(first)s + CASE WHEN %(spread)s THEN n ELSE 1 END, n, md5(n::text)::uuid, '', 1990, 'BRL', '', '', 'processing', 2, '', 0, 1, 0, 7,
    now() + interval '1 minute', now(), now()
FROM generate_series(1, %(payments)s) n;
INSERT INTO payments_attempt (tenant_id, payment_id, number, processor_id, reason, requested_at, outcome, code, reference)
SELECT tenant_id, id, 1, 1, '', now(), '', '', '' FROM payments_payment
"""
NOW = datetime.now(UTC)


def same(value: Any) -> list[Any]:
    return [value for _ in range(PAYMENTS)]


def columns(*, spread: bool) -> dict[str, Any]:
    numbers = range(1, PAYMENTS + 1)
    return {"tenant": Bigints([FIRST + (n if spread else 1) for n in numbers]), "payment": Bigints(list(numbers))}


BEGIN = {
    "number": Bigints(same(2)), "status": Texts(same("processing")), "changed": same(True), "processor": Bigints(same(1)),
    "requested_at": same(NOW), "reason": Texts(same("")), "in_doubt_since": unless_empty(same(None)), "reference": Texts(same("")),
    "worker": 7, "lease": 30.0,
}  # fmt: skip
SETTLE = {
    "number": Bigints(same(1)), "status": Texts(same("succeeded")), "changed": same(True), "processor": Bigints(same(1)),
    "requested_at": same(NOW), "fee": Bigints(same(5)), "outcome": Texts(same("booked")), "code": Texts(same("")),
    "detail": Texts(same("")), "latency": Bigints(same(20)), "wait": same(None), "in_doubt_since": same(None), "dead": same(False),
    "reference": Texts(same("")), "action": same(None), "worker": 7, "lease": 30.0,
}  # fmt: skip
ACCEPT = {
    "correlation": Uuids([uuid_of(f"new {n}").bytes for n in range(PAYMENTS)]), "fingerprint": Blobs(same(b"")),
    "amount": Bigints(same(1990)), "currency": Texts(same("BRL")), "description": Texts(same("")), "metadata": same(None),
    "wanted": Texts(same("")), "run_at": same(None), "priority": Bigints(same(0)), "at": same(NOW), "method": same(None),
    "return_url": Texts(same("")),
}  # fmt: skip
STATEMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "begin": (work.SQL["begin"], BEGIN),
    "settle": (work.SETTLE, SETTLE),
    "accept": (store.SQL["accept"], ACCEPT),
}


@pytest.fixture(params=[False, True], ids=["one tenant", "many tenants"])
def spread(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def bed(_database: None, spread: bool) -> Iterator[Bed]:
    with undone(TABLES) as found:
        found.empty(restored=False)
        found.fill(SEED, {"first": FIRST, "payments": PAYMENTS, "spread": spread})
        yield found


@pytest.mark.parametrize("name", STATEMENTS)
def test_rows_are_not_joined_by_comparing_all_pairs(bed: Bed, spread: bool, name: str) -> None:
    sql, given = STATEMENTS[name]

    plan = bed.plan_of(sql, {**columns(spread=spread), **given})

    assert rows_of(plan) == PAYMENTS
    assert compared_by(plan) <= 20 * PAYMENTS
