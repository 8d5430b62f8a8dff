"""A merchant's history, made by SQL: payments with attempts, events, ledger, refunds, disputes and roll-ups.

90 % of the payments are spread over 30 days, the rest over the last hour. Of a hundred payments 95 succeeded, one
of them at its second attempt, 3 failed, 1 was canceled, and 1 waits for its payer; every 50th was refunded, every 1,000th is
disputed. The last 200 wait for a worker.
"""

from dataclasses import dataclass
from uuid import UUID

import psycopg
from rich.progress import Progress

from bench.place import DEFAULT_FEE, FALLBACK_FEE, Place

PORTION = 100_000  # payments per statement
WAITING = 200  # payments that are not settled


@dataclass(frozen=True)
class Sample:
    """A payment in the middle of the history, for addresses of pages."""

    id: UUID
    amount: str  # as a person types it
    reference: str  # the processor's
    order: str  # in its metadata


# What is derived of the number of a payment, once for all tables.
SEED = """
CREATE TEMPORARY TABLE seed AS
SELECT *, CASE WHEN status = 'succeeded' THEN round(amount * fee_share) END::bigint AS fee,
    created_at + make_interval(secs => settle_ms / 1000.0) AS settled_at,
    CASE WHEN status = 'succeeded' AND n %% 50 = 0 THEN CASE WHEN n %% 100 = 0 THEN amount ELSE amount / 2 END ELSE 0 END AS refunded
FROM (
    SELECT n, n AS id, md5(n::text)::uuid AS correlation_id, 100 + (n * 7919) %% 99900 AS amount,
        CASE WHEN n > %(size)s - %(waiting)s THEN 'queued' WHEN n %% 100 IN (4, 5, 6) THEN 'failed' WHEN n %% 100 = 97 THEN 'canceled'
            WHEN n %% 100 = 98 THEN 'requires_action' ELSE 'succeeded' END AS status,
        CASE WHEN n %% 5 = 0 THEN %(fallback)s ELSE %(default)s END AS processor_id,
        CASE WHEN n %% 5 = 0 THEN %(fallback_fee)s ELSE %(default_fee)s END AS fee_share,
        CASE WHEN n %% 100 = 99 THEN 2 ELSE 1 END AS attempts,
        20 + ((n * 7919) %% 1000)::float8 ^ 2 / 5000 + CASE WHEN n %% 100 = 99 THEN 3000 ELSE 0 END AS settle_ms,
        date_trunc('milliseconds', CASE
            WHEN n <= %(size)s * 0.9 THEN now() - interval '30 days' * (1 - n / (%(size)s * 0.9))
            ELSE now() - interval '1 hour' * ((%(size)s - n) / (%(size)s * 0.1)) END) AS created_at
    FROM generate_series(%(low)s::bigint, %(high)s::bigint) n
) one
"""
PAYMENTS = """
INSERT INTO payments_payment (tenant_id, id, correlation_id, fingerprint, amount, currency, description, metadata, wanted_processor,
    status, sequence, code, processor_id, requested_at, fee, owed_back, refunded, priority, attempt, run_at, created_at, changed_at)
SELECT %(tenant)s, id, correlation_id, decode(md5(n::text), 'hex'), amount, 'BRL', 'Order ' || n,
    jsonb_build_object('order', 'A-' || lpad(n::text, 8, '0'), 'customer', 'c' || n %% 5000), '',
    status, CASE status WHEN 'queued' THEN 1 ELSE 3 + (refunded > 0)::int END, CASE status WHEN 'failed' THEN 'card_declined' ELSE '' END,
    CASE status WHEN 'succeeded' THEN processor_id END, CASE status WHEN 'succeeded' THEN created_at + interval '5 ms' END, fee,
    refunded, refunded, 0, CASE status WHEN 'queued' THEN 0 ELSE attempts END, created_at, created_at,
    CASE status WHEN 'queued' THEN created_at ELSE settled_at END
FROM seed
"""
ATTEMPTS = """
INSERT INTO payments_attempt (tenant_id, payment_id, number, processor_id, reason, requested_at, started_at, outcome, code, latency_ms, reference)
SELECT %(tenant)s, id, number, processor_id, 'cheapest', created_at + interval '5 ms', created_at + interval '5 ms',
    CASE WHEN number < attempts THEN 'not_booked' WHEN status = 'succeeded' THEN 'booked' WHEN status = 'requires_action' THEN status
        ELSE 'declined' END,
    CASE status WHEN 'failed' THEN 'card_declined' ELSE '' END, settle_ms - 8, 'pi_' || md5(n || '/' || number)
FROM seed CROSS JOIN LATERAL generate_series(1, attempts) AS number
WHERE status NOT IN ('queued', 'canceled')
"""
EVENTS = """
WITH changes AS (
    SELECT id, sequence, processor_id, attempts, refunded,
        CASE sequence WHEN 1 THEN 'queued' WHEN 2 THEN 'processing' ELSE status END AS status,
        CASE sequence WHEN 1 THEN created_at WHEN 2 THEN created_at + interval '5 ms' ELSE settled_at END AS at,
        CASE sequence WHEN 4 THEN 'refund.returned' ELSE '' END AS kind
    FROM seed CROSS JOIN LATERAL generate_series(1, CASE WHEN status = 'queued' THEN 1 WHEN refunded > 0 THEN 4 ELSE 3 END) AS sequence
), numbered AS MATERIALIZED (
    SELECT payments_number(%(tenant)s, t.events) - t.events AS before FROM (SELECT count(*) AS events FROM changes OFFSET 0) t
)
INSERT INTO payments_paymentevent (tenant_id, position, payment_id, sequence, status, processor_id, attempt, at, detail, kind, subject_id)
SELECT %(tenant)s, before + row_number() OVER (ORDER BY at, id, sequence), id, sequence, status,
    CASE WHEN sequence > 1 THEN processor_id END, attempts, at, '', kind, CASE WHEN kind <> '' THEN id END
FROM changes CROSS JOIN numbered
"""
LEDGER = """
INSERT INTO payments_ledgerentry (tenant_id, payment_id, processor_id, account, amount, currency, at, cause, cause_id)
SELECT %(tenant)s, id, processor_id, l.account, l.amount, 'BRL', l.at, l.cause, l.cause_id
FROM seed CROSS JOIN LATERAL (VALUES
    ('processor', amount, settled_at, 'payment', NULL), ('fees', -fee, settled_at, 'payment', NULL),
    ('balance', fee - amount, settled_at, 'payment', NULL),
    ('processor', -refunded, settled_at, 'refund', id), ('balance', refunded, settled_at, 'refund', id),
    ('processor', CASE WHEN n %% 1000 = 3 THEN -amount ELSE 0 END, settled_at, 'dispute', id),
    ('balance', CASE WHEN n %% 1000 = 3 THEN amount ELSE 0 END, settled_at, 'dispute', id)
) AS l (account, amount, at, cause, cause_id)
WHERE status = 'succeeded' AND (l.cause = 'payment' OR l.amount <> 0)
ORDER BY settled_at
"""
REFUNDS = """
INSERT INTO payments_refund (tenant_id, id, payment_id, public_id, number, fingerprint, amount, currency, reason, actor, external,
    processor_id, reference, status, code, requested_at, settled_at, priority, attempt, tries_from, run_at, created_at, changed_at)
SELECT %(tenant)s, id, id, md5('refund' || n)::uuid, 1, decode(md5(n::text), 'hex'), refunded, 'BRL', 'returned goods', 'ana', false,
    processor_id, 're_' || md5(n::text), 'returned', '', settled_at, settled_at, 0, 1, 0, settled_at, settled_at, settled_at
FROM seed WHERE refunded > 0
"""
DISPUTES = """
INSERT INTO payments_dispute (tenant_id, id, payment_id, processor_id, reference, amount, currency, reason, status, due_by, withdrawn,
    movements, opened_at, changed_at)
SELECT %(tenant)s, id, id, processor_id, 'dp_' || md5(n::text), amount, 'BRL', 'fraudulent', 'needs_response', now() + interval '5 days',
    amount, 1, settled_at, settled_at
FROM seed WHERE status = 'succeeded' AND n %% 1000 = 3
"""
ROLLUPS = """
INSERT INTO payments_rollup (tenant_id, width, starts_at, processor_id, currency, payments, amount, fee)
SELECT tenant_id, width, date_bin(make_interval(secs => width), requested_at, 'epoch'), processor_id, currency,
    count(*), sum(amount), sum(fee)
FROM payments_payment, (VALUES (1), (3600)) AS widths (width)
WHERE status = 'succeeded'
GROUP BY 1, 2, 3, 4, 5
"""
# Times from acceptance to settlement by bucket, as the settling statement counts them.
ATTEMPT_ROLLUPS = """
INSERT INTO payments_attemptrollup (tenant_id, width, starts_at, processor_id, status, bucket, attempts, answers, latency_ms)
SELECT p.tenant_id, width, date_bin(make_interval(secs => width), p.changed_at, 'epoch'), a.processor_id, p.status,
    floor(ln(extract(epoch FROM p.changed_at - p.created_at)::float8 * 1000) / ln(2) * 4), count(*), count(*), sum(a.latency_ms)
FROM payments_payment p JOIN payments_attempt a ON a.tenant_id = p.tenant_id AND a.payment_id = p.id AND a.number = p.attempt,
    (VALUES (60), (3600)) AS widths (width)
WHERE p.status IN ('succeeded', 'failed') AND (width = 3600 OR p.changed_at > now() - interval '2 days')
GROUP BY 1, 2, 3, 4, 5, 6
"""
TABLES = {
    "payments_payment": PAYMENTS, "payments_attempt": ATTEMPTS, "payments_paymentevent": EVENTS, "payments_ledgerentry": LEDGER,
    "payments_refund": REFUNDS, "payments_dispute": DISPUTES,
}  # fmt: skip
TOTALS = {"payments_rollup": ROLLUPS, "payments_attemptrollup": ATTEMPT_ROLLUPS}
NUMBERED = ("payments_payment", "payments_refund", "payments_dispute")  # whose ids are given here


def filled(here: Place, size: int, bars: Progress) -> Sample:
    """Fill the tenant's tables; about a minute and a half for a million payments on two cores."""
    for name, fee in (("default", DEFAULT_FEE), ("fallback", FALLBACK_FEE)):
        here.manage("processor", "add", "bench", name, "--kind", "sandbox", "--fee", str(fee))
    bar = bars.add_task(f"making {size:,} payments", total=size)
    with here.connect() as connection:
        connection.execute("SET synchronous_commit = off")
        parameters = _parameters(here, size)
        for low in range(1, size + 1, PORTION):
            high = min(low + PORTION - 1, size)
            connection.execute(SEED, parameters | {"low": low, "high": high})
            for statement in TABLES.values():
                connection.execute(statement, parameters)
            connection.execute("DROP TABLE seed")
            bars.advance(bar, high - low + 1)
        bars.update(bar, description="rolling up")
        for statement in TOTALS.values():
            connection.execute(statement, parameters)
        for table in NUMBERED:
            connection.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), %s)", (size,))
        connection.execute(f"VACUUM (ANALYZE) {', '.join([*TABLES, *TOTALS])}")
        return _sample(connection, size)


def _parameters(here: Place, size: int) -> dict[str, object]:
    with here.connect() as connection:
        names = dict(connection.execute("SELECT name, id FROM payments_processor").fetchall())
    return {
        "tenant": here.ask("SELECT id FROM registry_tenant WHERE slug = 'bench'"), "size": size, "waiting": WAITING,
        "default": names["default"], "fallback": names["fallback"], "default_fee": DEFAULT_FEE, "fallback_fee": FALLBACK_FEE,
    }  # fmt: skip


def _sample(connection: psycopg.Connection, size: int) -> Sample:
    found = connection.execute(
        """SELECT p.correlation_id, p.amount, a.reference, p.metadata ->> 'order' FROM payments_payment p
        JOIN payments_attempt a ON a.tenant_id = p.tenant_id AND a.payment_id = p.id
        WHERE p.status = 'succeeded' AND p.id > %s ORDER BY p.id LIMIT 1""",
        (size // 2,),
    ).fetchone()
    assert found
    identifier, amount, reference, order = found
    return Sample(identifier, f"{amount / 100:.2f}", reference, order)
