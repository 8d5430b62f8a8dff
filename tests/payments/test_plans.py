"""Plans of hot statements read only the rows they name, with any planner statistics."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

import payments
import queueing
from payments.books.ledger import PROOFS
from payments.inbound import work as inbound
from payments.reconciliation import comparison
from payments.refunds import work as refund_work
from payments.settle import work
from queueing.outbound import fanout
from registry.data import database
from tests.plans import TENANT, Asked, Read, measure_twice, table_of, uuid_of

APP = Path(payments.__file__).parent
OUTBOUND = Path(queueing.__file__).parent / "outbound" / "sql" / "outbound.sql"  # its tables are measured here too
SQL = {path.stem: database.statements(path) for path in sorted([*APP.rglob("sql/*.sql"), OUTBOUND])}

TABLES = [
    f"payments_{name}"
    for name in (
        "payment", "attempt", "attemptrollup", "paymentevent", "ledgerentry", "rollup", "deadletter", "refund", "dispute", "inboundevent",
        "reconciliation", "difference", "sandboxbooking", "sandboxrefund",
    )
] + ["queueing_webhookdelivery", "queueing_webhookattempt", "queueing_webhookendpoint"]  # fmt: skip

# Of 10,000 payments 7,000 are booked, 500 each failed, wait for an action and are in doubt (half of them given up, ten in the
# hands of worker 77), 1,500 are queued, of which 500 are due.
SEED = """
SELECT setval(pg_get_serial_sequence(t, 'id'), 1000000) FROM unnest(ARRAY['payments_payment', 'payments_refund', 'payments_difference',
    'payments_inboundevent', 'queueing_webhookdelivery', 'queueing_webhookendpoint', 'payments_reconciliation', 'payments_dispute']) t;
INSERT INTO registry_tenant (id, slug, name, currency, status, mode, open, settings)
VALUES (%(tenant)s, 'plans', '', 'BRL', 'active', 'sandbox', false, '{}');
INSERT INTO payments_processor (id, tenant_id, name, kind, url, fee, options, enabled)
SELECT %(tenant)s + n, %(tenant)s, 'p' || n, 'sandbox', '', 0, '{}', true FROM generate_series(1, 2) n;
INSERT INTO payments_stream (tenant_id, position) VALUES (%(tenant)s, 2 * %(rows)s);
"""
ROWS = """
INSERT INTO payments_payment (tenant_id, id, correlation_id, fingerprint, amount, currency, description, wanted_processor,
    status, sequence, code, processor_id, requested_at, fee, refunded, attempt, priority, run_at, in_doubt_since, lease_id,
    leased_until, created_at, changed_at)
SELECT %(tenant)s, n, md5(n::text)::uuid, '', 1990, 'BRL', '', '',
    CASE WHEN n <= 7000 THEN 'succeeded' WHEN n <= 7500 THEN 'failed' WHEN n <= 8000 THEN 'requires_action'
        WHEN n <= 8500 THEN 'uncertain' ELSE 'queued' END,
    2, '', CASE WHEN n <= 7000 THEN %(tenant)s + 1 + n %% 2 END,
    CASE WHEN n <= 7000 THEN '2026-01-01Z'::timestamptz + n * interval '1 second' END,
    CASE WHEN n <= 7000 THEN 0 END, 0, CASE WHEN n <= 8500 THEN 1 ELSE 0 END, 0,
    CASE WHEN n > 8250 AND n <= 8500 THEN '9999-12-31Z' WHEN n > 9000 THEN now() + interval '1 day' ELSE now() END,
    CASE WHEN n > 8000 AND n <= 8500 THEN now() END, CASE WHEN n > 8000 AND n <= 8010 THEN 77 END,
    CASE WHEN n > 8000 AND n <= 8010 THEN now() + interval '1 minute' END,
    '2026-01-01Z'::timestamptz + n * interval '1 second', now() - interval '1 hour'
FROM generate_series(1, %(rows)s) n WHERE (n %% %(step)s = 0) = %(first)s;
INSERT INTO payments_attempt (tenant_id, payment_id, number, processor_id, reason, requested_at, outcome, code, reference)
SELECT tenant_id, id, n, %(tenant)s + 1, '', coalesce(requested_at, created_at), '', '', 'pi_' || id
FROM payments_payment, generate_series(1, 2) n WHERE (n <= attempt OR id <= 1500) AND (id %% %(step)s = 0) = %(first)s;
INSERT INTO payments_paymentevent (tenant_id, position, payment_id, sequence, status, attempt, detail, kind, subject_id)
SELECT %(tenant)s, n, (n + 1) / 2, 2 - n %% 2, 'queued', 0, '', '', NULL FROM generate_series(1, 2 * %(rows)s) n WHERE (n %% %(step)s = 0) = %(first)s;
INSERT INTO payments_ledgerentry (tenant_id, payment_id, processor_id, account, amount, currency, cause, cause_id)
SELECT tenant_id, id, processor_id, 'balance', 0, 'BRL', CASE WHEN n < 4 THEN 'payment' ELSE 'refund' END, CASE WHEN n = 4 THEN id END
FROM payments_payment, generate_series(1, 4) n WHERE closed = 'succeeded' AND (n < 4 OR id <= 2000) AND (id %% %(step)s = 0) = %(first)s;
INSERT INTO payments_rollup (tenant_id, width, starts_at, processor_id, currency, payments, amount, fee)
SELECT %(tenant)s, 1, requested_at, processor_id, 'BRL', 1, 1990, 0 FROM payments_payment WHERE closed = 'succeeded' AND (id %% %(step)s = 0) = %(first)s;
INSERT INTO payments_attemptrollup (tenant_id, width, starts_at, processor_id, status, bucket, attempts, answers, latency_ms)
SELECT %(tenant)s, 60, requested_at, processor_id, 'succeeded', 20, 1, 1, 12 FROM payments_payment WHERE closed = 'succeeded' AND (id %% %(step)s = 0) = %(first)s;
INSERT INTO payments_deadletter (tenant_id, payment_id, code, detail, resolution, resolved_by)
SELECT %(tenant)s, n, '', '', CASE WHEN n %% 2 = 0 THEN '' ELSE 'closed' END, '' FROM generate_series(1, %(rows)s) n WHERE (n %% %(step)s = 0) = %(first)s;
INSERT INTO payments_refund (tenant_id, id, payment_id, public_id, number, fingerprint, amount, currency, reason, actor, external,
    processor_id, reference, status, code, settled_at, stopped_at, run_at, priority, attempt, tries_from, lease_id, leased_until)
SELECT %(tenant)s, n, (n + 1) / 2, md5('r' || n)::uuid, 2 - n %% 2, '', 1, 'BRL', '', '', false, %(tenant)s + 1,
    CASE WHEN n <= 8000 THEN 're_' || n ELSE '' END,
    CASE WHEN n <= 8000 THEN 'returned' WHEN n <= 8500 THEN 'uncertain' ELSE 'owed' END, '',
    CASE WHEN n <= 8000 THEN '2025-01-01Z'::timestamptz END, CASE WHEN n > 8250 AND n <= 8500 THEN now() - interval '1 hour' END,
    CASE WHEN n > 8250 AND n <= 8500 THEN '9999-12-31Z' WHEN n > 9000 THEN now() + interval '1 day' ELSE now() END, 0, 1, 0,
    CASE WHEN n > 8000 AND n <= 8010 THEN 77 END, CASE WHEN n > 8000 AND n <= 8010 THEN now() + interval '1 minute' END
FROM generate_series(1, %(rows)s) n WHERE (n %% %(step)s = 0) = %(first)s;
INSERT INTO payments_dispute (tenant_id, id, payment_id, processor_id, reference, amount, currency, reason, status, withdrawn, movements,
    changed_at)
SELECT %(tenant)s, n, n, %(tenant)s + 1, 'dp_' || n, 1, 'BRL', '', '', 0, 0, '2025-01-01Z' FROM generate_series(1, %(rows)s) n WHERE (n %% %(step)s = 0) = %(first)s;
INSERT INTO payments_inboundevent (tenant_id, id, processor_id, event_id, type, object_id, account, livemode, created, body, headers,
    source, status, run_at, attempt, lease_id, leased_until, received_at)
SELECT %(tenant)s, n, %(tenant)s + 1, 'evt_' || n, 't', '', '', false, now(), '', '{}', 'delivery',
    CASE WHEN n <= 8000 THEN 'done' WHEN n <= 8500 THEN 'dead' ELSE 'received' END,
    CASE WHEN n > 9000 THEN now() + interval '1 day' ELSE now() END, 1,
    CASE WHEN n > 8500 AND n <= 8510 THEN 77 END, CASE WHEN n > 8500 AND n <= 8510 THEN now() + interval '1 minute' END,
    now() - (%(rows)s - n) * interval '1 minute'
FROM generate_series(1, %(rows)s) n WHERE (n %% %(step)s = 0) = %(first)s;
INSERT INTO queueing_webhookendpoint (tenant_id, id, uuid, url, events, positions, secrets, ordered, failing_since, deleted_at, enabled)
SELECT %(tenant)s, n, md5('e' || n)::uuid, '', '[]', jsonb_build_object('payments', 2 * %(rows)s), '', n %% 2 = 0, CASE WHEN n %% 2 = 0 THEN now() END,
    CASE WHEN n > 10 THEN now() END, n <= 10
FROM generate_series(1, %(rows)s) n WHERE (n %% %(step)s = 0) = %(first)s;
INSERT INTO queueing_webhookdelivery (tenant_id, id, endpoint_id, message_id, position, subject, type, body, ordered, status, run_at,
    attempt, lease_id, leased_until)
SELECT %(tenant)s, n, 1 + n %% 10, n::text, n, md5((n / 20)::text)::uuid, 't', '', n %% 2 = 1,
    CASE WHEN n <= 8000 THEN 'delivered' WHEN n <= 8500 THEN 'dead' WHEN n %% 4 = 1 THEN 'held' ELSE 'pending' END,
    CASE WHEN n > 9000 OR n %% 4 = 1 THEN now() + interval '1 day' ELSE now() END, 1,
    CASE WHEN n > 8500 AND n <= 8520 THEN 77 END, CASE WHEN n > 8500 AND n <= 8520 THEN now() + interval '1 minute' END
FROM generate_series(1, %(rows)s) n WHERE (n %% %(step)s = 0) = %(first)s;
INSERT INTO queueing_webhookattempt (tenant_id, delivery_id, number, signed_at, latency_ms)
SELECT tenant_id, id, 1, now(), 1 FROM queueing_webhookdelivery WHERE closed IS NOT NULL AND (id %% %(step)s = 0) = %(first)s;
INSERT INTO payments_reconciliation (tenant_id, id, processor_id, since, until, both_ways, records, payments, differences, unanswered,
    fault, attempt, finished_at)
SELECT %(tenant)s, n, %(tenant)s + 1 + n %% 2, now() - n * interval '1 hour', now() - n * interval '1 hour', true, 0, 0, 0, 0, '', 1,
    CASE WHEN n > 5 THEN now() END
FROM generate_series(1, %(rows)s) n WHERE (n %% %(step)s = 0) = %(first)s;
INSERT INTO payments_difference (tenant_id, id, processor_id, kind, key, reference, our_status, our_currency, their_currency,
    requested_at, resolution, resolved_by, note, their_amount, correlation_id)
SELECT %(tenant)s, n, %(tenant)s + 1, 'missing_here', n::text, '', '', '', 'BRL', now() - interval '1 year',
    CASE WHEN n %% 2 = 0 THEN '' ELSE 'closed' END, '', '', 1990, md5('x' || n)::uuid
FROM generate_series(1, %(rows)s) n WHERE (n %% %(step)s = 0) = %(first)s;
INSERT INTO payments_sandboxbooking (processor_id, correlation_id, amount, currency, requested_at)
SELECT %(tenant)s + 1, correlation_id, 1990, 'BRL', created_at FROM payments_payment WHERE (id %% %(step)s = 0) = %(first)s;
INSERT INTO payments_sandboxrefund (processor_id, refund_id, correlation_id, amount, currency, requested_at)
SELECT %(tenant)s + 1, public_id, md5(payment_id::text)::uuid, 1, 'BRL', now() FROM payments_refund WHERE (id %% %(step)s = 0) = %(first)s
"""

AT = datetime(2026, 1, 1, tzinfo=UTC)
LATER = AT + timedelta(seconds=3000)


def named(n: int, prefix: str = "") -> UUID:
    return uuid_of(f"{prefix}{n}")


def keys(*numbers: int, **names: Any) -> dict[str, Any]:
    """Columns for rows of the tenant, by number."""
    return {"tenant": [TENANT for _ in numbers], "processor": [TENANT + 1 for _ in numbers]} | {
        name: list(numbers) if value is ... else [value for _ in numbers] for name, value in names.items()
    }


ONE = {"tenant": TENANT, "correlation": named(4000), "processor": TENANT + 1}
DUE = {"limit": 10, "above": None, "below": 0.0}
TAKE = {"tenants": [TENANT], "quotas": [10], "above": None}
STANDING = {"tenants": None, "sample": 10, "heads": 10}
WORKER = {"worker": 77, "lease": 30.0}
SUMMARY = {
    "tenant": TENANT, "currency": None,
    "hours_from": "infinity", "hours_to": "-infinity", "head_from": "2026-01-01T00:10:00Z", "head_to": "2026-01-01T00:10:10Z",
    "tail_from": "infinity", "tail_to": "-infinity", "first_from": "2026-01-01T00:09:59.5Z", "first_to": "2026-01-01T00:10:00Z",
    "last_from": "2026-01-01T00:10:10Z", "last_to": "2026-01-01T00:10:10.5Z",
}  # fmt: skip
DISPUTED = {
    **ONE, "payment": 5, "reference": "dp_5", "amount": 1, "currency": "BRL", "reason": "", "status": "", "due_by": None,
    "withdrawn": 0, "movements": 0, "opened_at": AT, "closed": False, "dispute": 5,
}  # fmt: skip
OWED = {
    **ONE, "payment": 4000, "public": named(99999), "fingerprint": b"", "amount": 1, "currency": "BRL", "reason": "", "actor": "",
    "external": False, "reference": "", "status": "owed", "most": 10,
}  # fmt: skip
MOVED = {
    **ONE, "payment": 4000, "owed": 1, "refunded": 1, "back": 1, "cause": "refund", "subject": 8000, "detail": "", "kind": "x",
}  # fmt: skip
SETTLED = {
    **WORKER, **keys(8001, 8002, 8003, payment=..., number=1, status="succeeded", changed=True, requested_at=AT, fee=1,
        outcome="booked", code="", detail="", latency=1, wait=None, in_doubt_since=None, dead=False, reference="", action=None),
}  # fmt: skip
DIED = {**SETTLED, **keys(8001, 8002, 8003, status="failed", dead=True)}
REFUNDED = {
    **WORKER, **keys(8001, 8002, 8003, refund=..., payment=..., number=1, status="returned", code="", detail="", wait=None,
        in_doubt_since=None, stopped=False), "reference": ["re_a", "re_b", "re_c"], "payment": [4001, 4001, 4002],
}  # fmt: skip
DELIVERED = {
    "worker": 77, "patience": 60.0, **keys(8501, 8503, 8505, delivery=..., number=1, status="delivered", wait=None, rest=None, answer=200,
        error="", signed_at=AT, signature="", headers=None, body="", latency=1),
}  # fmt: skip
FOUND = {
    **ONE, **{k: v for k, v in keys(3, 4, 10001, payment_id=..., correlation_id=named(1), our_amount=1, our_refunded=1, their_amount=1,
        their_refunded=1, requested_at=AT, our_status="", our_currency="", their_currency="BRL", reference="", kind="missing_here"
    ).items() if k not in ONE}, "key": ["3", "4", "10001"],
}  # fmt: skip
ACCEPTED = {
    **keys(1, 2, fingerprint=b"", amount=1990, currency="BRL", description="", metadata=None, wanted="", run_at=None, priority=0, at=AT,
        method=None, return_url=""), "correlation": [named(1), named(20000)],
}  # fmt: skip
RECEIVED = {
    **keys(1, 2, type="t", object="", created=1, account="", livemode=False, body=b"", headers="{}", source="delivery"),
    "event": ["evt_1", "evt_new"],
}  # fmt: skip
BOOKED = {
    "tenant": TENANT, "processors": [TENANT + 1, TENANT + 2], "at": [AT + timedelta(seconds=2), AT + timedelta(seconds=3)],
    "currencies": ["BRL", "BRL"], "amounts": [1990, 1990], "fees": [0, 0],
}  # fmt: skip
PAGE = {"tenant": TENANT, "after": 2000, "limit": 10}
SLICE = {"tenant": TENANT, "after": 2000, "last": 2010}
NEVER = datetime.max.replace(tzinfo=UTC)
WINDOW = {**ONE, "since": LATER, "until": LATER + timedelta(seconds=10)}
JANITOR = {"tenant": TENANT, "after": 0, "youngest": 60.0, "oldest": 86400.0, "limit": 10}

ASKED: dict[str, tuple] = {
    "intake/accept": (SQL["intake"]["accept"], ACCEPTED, 10),
    "intake/existing": (SQL["intake"]["existing"], {"tenant": [TENANT] * 2, "correlation": [named(1), named(20000)]}, 10),
    "settle/due": (work.PAYMENTS.due, DUE, 20),
    "settle/any_open": (work.PAYMENTS.any_open, {}, 5),
    "settle/standing": (work.PAYMENTS._made("standing"), STANDING, 70),
    "settle/standing unprepared": (work.PAYMENTS._made("standing"), STANDING, 70, True),
    "settle/standing of a tenant": (work.PAYMENTS._made("standing"), {**STANDING, "tenants": [TENANT]}, 70, True),
    "settle/take": (work.PAYMENTS.take, TAKE, 40),
    "settle/take_divided": (work.TAKE_DIVIDED, {**TAKE, "firsts": [True], "parts": ["p1"], "included": True, "accounts": [TENANT + 1]}, 60),
    "settle/begin": (SQL["settle"]["begin"], {**WORKER, **keys(8501, 8502, payment=..., number=2, status="processing", changed=True, requested_at=AT, reason="", in_doubt_since=None, reference="")}, 20),
    "settle/in_doubt": (work.IN_DOUBT, {"limit": 10, "tenants": [TENANT], "free": [10], "accounts": None, "included": False}, 60),
    "settle/abandon": (SQL["settle"]["abandon"], {"tenants": [TENANT]}, 2100),
    "settle/postpone": (SQL["settle"]["postpone"], {"seconds": 1.0, **keys(8501, 8502, payment=...)}, 10),
    "settle/wait": (SQL["settle"]["wait"], {"seconds": [0.1, 0.1], "tenant": [TENANT] * 2, "payment": [8501, 8502]}, 10),
    "settle/settle": (work.SETTLE, SETTLED, 30),
    "settle/settle (dead)": (work.SETTLE, DIED, 30),
    "settle/by_id": (work.BY_ID, {"tenant": [TENANT], "correlation": [named(8600)]}, 10),
    "lifecycle/cancel": (SQL["lifecycle"]["cancel"], {**ONE, "correlation": named(9500)}, 10),
    "lifecycle/look_again": (SQL["lifecycle"]["look_again"], {"tenant": TENANT, "correlations": [named(7600)], "statuses": ["requires_action"], "cancel": False, "capture": False, "reason": ""}, 10),
    "lifecycle/purpose": (SQL["lifecycle"]["purpose"], ONE, 10),
    "accounts/unsettled": (SQL["accounts"]["unsettled"], ONE, 3600, True),
    "console/processors": (SQL["console"]["processors"], {"tenant": TENANT}, 40),
    "events/since": (SQL["events"]["since"], {"tenant": TENANT, "after": 10000, "limit": 10}, 40),
    "events/of_payment": (SQL["events"]["of_payment"], {**ONE, "after": 0}, 20),
    "dry_run/sends": (SQL["dry_run"]["sends"], {"tenant": TENANT, "last": 10}, 60),
    "queries/payment": (SQL["queries"]["payment"], ONE, 10),
    "facts/facts": (SQL["facts"]["facts"], ONE, 40),
    "queries/attempts": (SQL["queries"]["attempts"], {"tenant": TENANT, "payment": 1000}, 20),
    "queries/timeline": (SQL["queries"]["timeline"], {"tenant": TENANT, "payment": 4000}, 10),
    "figures/unfinished": (SQL["figures"]["unfinished"], {"tenant": TENANT, "limit": 10}, 60),
    "figures/accepted": (SQL["figures"]["accepted"], {"tenant": TENANT, "over": 10}, 10),
    "figures/ended": (SQL["figures"]["ended"], {"tenant": TENANT, "width": 60, "since": AT + timedelta(seconds=6980)}, 40),
    "figures/course": (SQL["figures"]["course"], {"tenant": TENANT, "course_width": 60, "bin": 60, "since": AT + timedelta(seconds=6980)}, 40),
    "entries/first_since": (SQL["entries"]["first_since"], {"tenant": TENANT, "at": datetime.now(UTC)}, 60),
    "takers/takers": (SQL["takers"]["takers"], {"tenants": [TENANT], "limit": 10}, 40, True),
    "check/payment_page": (SQL["check"]["payment_page"], PAGE, 20, True),
    "check/payment_last": (SQL["check"]["payment_last"], ONE, 50, True),
    "check/payments": (SQL["check"]["payments"], SLICE, 500, True),
    "check/line_page": (SQL["check"]["line_page"], PAGE, 20, True),
    "check/line_last": (SQL["check"]["line_last"], ONE, 50, True),
    "check/lines": (SQL["check"]["lines"], SLICE, 60, True),
    "check/refund_page": (SQL["check"]["refund_page"], PAGE, 20, True),
    "check/refund_last": (SQL["check"]["refund_last"], ONE, 50, True),
    "check/refunds": (SQL["check"]["refunds"], SLICE, 150, True),
    "check/dispute_page": (SQL["check"]["dispute_page"], PAGE, 20, True),
    "check/dispute_last": (SQL["check"]["dispute_last"], ONE, 50, True),
    "check/disputes": (SQL["check"]["disputes"], SLICE, 150, True),
    "check/rollup_end": (SQL["check"]["rollup_end"], {**ONE, "start": LATER.isoformat(), "limit": 10}, 40, True),
    "check/rollups": (SQL["check"]["rollups"], {**ONE, "start": LATER.isoformat(), "end": (LATER + timedelta(seconds=10)).isoformat()}, 60, True),
    "check/numbers": (SQL["check"]["numbers"], SLICE, 60, True),
    "summary/summary": (SQL["summary"]["summary"], SUMMARY, 40),
    "ledger/prove_since": (PROOFS["prove_since"], {"since": AT + timedelta(seconds=6990), "after": 10**9}, 100),
    "ledger/balance": (SQL["ledger"]["balance"], ONE, 2100),
    "disputes/known": (SQL["disputes"]["known"], DISPUTED, 5),
    "disputes/update": (SQL["disputes"]["update"], DISPUTED, 5),
    "refunds/any_open": (refund_work.REFUNDS.any_open, {}, 5),
    "refunds/due": (refund_work.REFUNDS.due, DUE, 20),
    "refunds/take": (refund_work.REFUNDS.take, TAKE, 60),
    "refunds/lock": (SQL["refunds"]["lock"], ONE, 10),
    "refunds/fingerprint": (SQL["refunds"]["fingerprint"], {"tenant": TENANT, "public": named(5, "r")}, 5),
    "refunds/insert": (SQL["refunds"]["insert"], OWED, 10),
    "refunds/move": (SQL["refunds"]["move"], MOVED, 10),
    "refunds/by_id": (refund_work.BY_ID, {"tenant": [TENANT], "public": [named(8600, "r")]}, 10),
    "refunds/begin": (SQL["refunds"]["begin"], {**WORKER, **keys(8501, 8502, refund=..., number=2, status="uncertain", requested_at=AT, in_doubt_since=None)}, 10),
    "refunds/postpone": (SQL["refunds"]["postpone"], {"seconds": 1.0, **keys(8501, 8502, refund=...)}, 10),
    "refunds/settle": (SQL["refunds"]["settle"], REFUNDED, 30),
    "refunds/subject": (SQL["refunds"]["subject"], {**ONE, "ids": [named(4000)], "public": named(5, "r"), "reference": "pi_4000", "labelled": named(4000)}, 15),
    "refunds/known": (SQL["refunds"]["known"], {**ONE, "payment": 3, "public": named(5, "r"), "reference": "re_5"}, 10),
    "refunds/close": (SQL["refunds"]["close"], {"tenant": TENANT, "refund": 8600, "status": "failed", "code": "", "reference": ""}, 5),
    "refunds/stopped": (SQL["refunds"]["stopped"], {"tenant": TENANT, "refund": 8300}, 5),
    "refunds/hold_stopped": (SQL["refunds"]["hold_stopped"], {"tenant": TENANT, "refund": 8300}, 5),
    "refunds/retry": (SQL["refunds"]["retry"], {"tenant": TENANT, "refund": 8300}, 5),
    "refunds/of_payment": (SQL["refunds"]["of_payment"], {**ONE, "public": None, "limit": 10}, 10),
    "janitor/payments": (SQL["janitor"]["payments"], JANITOR, 900, True),
    "janitor/refunds": (SQL["janitor"]["refunds"], JANITOR, 2400, True),
    "inbound/receive": (SQL["inbound"]["receive"], RECEIVED, 10),
    "inbound/any_open": (inbound.INBOUND.any_open, {}, 5),
    "inbound/due": (inbound.INBOUND.due, DUE, 20),
    "inbound/take": (inbound.INBOUND.take, TAKE, 40),
    "inbound/begin": (SQL["inbound"]["begin"], {**WORKER, **keys(8601, 8602, id=...)}, 5),
    "inbound/finish": (SQL["inbound"]["finish"], {"worker": 77, **keys(8501, 8502, id=..., attempt=1, status="done", outcome="", error="", payment_id=None, wait=0.0)}, 5),
    "inbound/hold": (SQL["inbound"]["hold"], {"tenant": TENANT, "correlations": [named(1), named(2)]}, 5),
    "inbound/give_back": (SQL["inbound"]["give_back"], {"worker": 77, **keys(8501, 8502, id=..., attempt=1)}, 5),
    "inbound/replay": (SQL["inbound"]["replay"], {"tenant": TENANT, "id": 8100}, 5),
    "inbound/close": (SQL["inbound"]["close"], {"tenant": TENANT, "id": 8100}, 5),
    "inbound/tenants": (SQL["inbound"]["tenants"], {}, 10),
    "inbound/retire": (SQL["inbound"]["retire"], {"tenant": TENANT, "days": 1, "slice": 10}, 60),
    "inbound/is_known": (SQL["inbound"]["is_known"], {**ONE, "correlation": named(20000), "reference": "re_none"}, 5),
    "inbound/subject": (SQL["inbound"]["subject"], ONE, 5),
    "webhooks/unread": (SQL["webhooks"]["unread"], {"limit": 10}, 10010),
    "outbound/and_new": (fanout._new(), {"limit": 10}, 20020),
    "settlement/slice": (SQL["settlement"]["slice"], {"tenant": TENANT, "zone": "UTC", "after": 0, "start": AT, "until": LATER, "limit": 10}, 40, True),
    "outbound/receivers": (SQL["outbound"]["receivers"], {"tenant": [TENANT], "uuid": [named(1)], "origin": ["https://example.com"]}, 5),
    "outbound/lock": (SQL["outbound"]["lock"], {"tenant": TENANT, "ids": [1, 2, 3], "source": "payments", "after": 20000}, 5),
    "webhooks/events": (SQL["webhooks"]["events"], {"tenant": TENANT, "after": 10000, "upto": 10010}, 50),
    "outbound/owe": (SQL["outbound"]["owe"], {"tenant": TENANT, "endpoint": [1, 2], "nth": [1, 1], "ordered": [True, True], "message": ["m"], "position": [1], "subject": [named(450)], "type": ["t"], "body": [""]}, 40),
    "outbound/move": (SQL["outbound"]["move"], {"tenant": TENANT, "ids": [1, 2, 3], "source": "payments", "upto": 5}, 5),
    "outbound/due": (SQL["outbound"]["due"], {**DUE, "limit": 20}, 60),
    "outbound/take": (SQL["outbound"]["take"], {"tenants": [TENANT] * 2, "endpoints": [1, 2], "quotas": [5, 5], "worker": 78, "lease": 30.0, "above": None}, 60),
    "outbound/alone": (SQL["outbound"]["alone"], {"tenants": [TENANT] * 2, "ids": [1, 2]}, 5),
    "outbound/settle": (SQL["outbound"]["settle"], DELIVERED, 100),
    "outbound/give_back": (SQL["outbound"]["give_back"], {"worker": 77, **keys(8501, 8502, delivery=..., number=1)}, 5),
    "outbound/failing": (SQL["outbound"]["failing"], {}, 10010),
    "outbound/trim_deliveries": (SQL["outbound"]["trim_deliveries"], {"each": 10, "days": 30, "limit": 10}, 20200, True),
    "outbound/replay": (SQL["outbound"]["replay"], {"tenant": TENANT, "endpoint": 1, "ids": [10, 20], "since": None, "until": None, "dead": False, "after": 0, "unchanged": None, "limit": 10}, 60),
    "outbound/create": (SQL["outbound"]["create"], {"tenant": TENANT, "uuid": named(99999), "url": "", "description": "", "events": "[]", "ordered": False, "enabled": True, "positions": "{}", "secrets": b"", "most": 10}, 10010),
    "outbound/standings": (SQL["outbound"]["standings"], {"tenant": TENANT, "ids": [1, 2]}, 450),
    "purge/purge_page": (SQL["purge"]["purge_page"], {"tenant": TENANT, "after": LATER, "after_id": 0, "before": NEVER, "limit": 10}, 20, True),
    "purge/purge_payments": (SQL["purge"]["purge_payments"], {"tenant": TENANT, "ids": [1, 2, 3]}, 10, True),
    "purge/purge_children": (SQL["purge"]["purge_children"], {"tenant": TENANT, "ids": [1, 2, 3], "correlations": [named(1), named(2), named(3)]}, 80, True),
    "purge/hold_refunds": (SQL["purge"]["hold_refunds"], {"tenant": TENANT, "ids": [1, 2, 3]}, 20, True),
    "purge/purge_left": (SQL["purge"]["purge_left"], {"tenant": TENANT, "before": NEVER, "limit": 10}, 20, True),
    "purge/hold_rollups": (SQL["purge"]["hold_rollups"], BOOKED, 20, True),
    "purge/purge_rollups": (SQL["purge"]["purge_rollups"], BOOKED, 40, True),
    "dead_letters/hold": (SQL["dead_letters"]["hold"], {"id": -1}, 5),
    "reconciliation/reach": (SQL["reconciliation"]["reach"], {"tenant": TENANT, "id": 5, "attempt": 1, "reached": AT, "records": 1, "payments": 1, "differences": 1, "unanswered": 1, "lease": 60.0}, 5),
    "reconciliation/finish": (SQL["reconciliation"]["finish"], {"tenant": TENANT, "id": 5, "attempt": 1, "both_ways": True, "complete": True}, 5100, True),
    "reconciliation/result": (SQL["reconciliation"]["result"], {"tenant": TENANT, "id": 5}, 5),
    "reconciliation/unfinished": (SQL["reconciliation"]["unfinished"], {"tenant": TENANT, "within": 86400.0}, 60, True),
    "reconciliation/slice_end": (SQL["reconciliation"]["slice_end"], {**WINDOW, "rows": 10}, 20),
    "reconciliation/booked": (SQL["reconciliation"]["booked"], WINDOW, 20),
    "reconciliation/ours": (comparison.SQL["ours"], {**WINDOW, "every": 1, "first": 0}, 60),
    "reconciliation/known": (comparison.SQL["known"], {"tenant": TENANT, "correlations": [named(1), named(2)]}, 20),
    "reconciliation/refunds_under_way": (comparison.SQL["refunds_under_way"], {"tenant": TENANT, "payments": [1, 4], "under_way": 900.0}, 10),
    "reconciliation/purged_at": (SQL["reconciliation"]["purged_at"], ONE, 5),
    "reconciliation/insert": (SQL["reconciliation"]["insert"], FOUND, 20),
    "sandbox/book": (SQL["sandbox"]["book"], {**keys(1, 2, amount=1, currency="BRL", requested_at=AT), "correlation": [named(1), named(20001)]}, 5),
    "sandbox/look_up": (SQL["sandbox"]["look_up"], ONE, 5),
    "sandbox/refund": (SQL["sandbox"]["refund"], {**keys(1, 2, amount=1, currency="BRL", requested_at=AT), "refund": [named(1), named(2)], "correlation": [named(1), named(2)]}, 10),
    "sandbox/look_up_refund": (SQL["sandbox"]["look_up_refund"], {"processor": [TENANT + 1], "refund": [named(5, "r")]}, 5),
    "sandbox/records": (SQL["sandbox"]["records"], {"processor": TENANT + 1, "after": named(1), "since": AT, "until": LATER, "limit": 10}, 2400),
    "export/open_payments": (SQL["export"]["open_payments"], ONE, 2600, True),
    "export/open_refunds": (SQL["export"]["open_refunds"], ONE, 2100, True),
    "export/open_events": (SQL["export"]["open_events"], ONE, 1600, True),
    "export/erasable": (SQL["export"]["erasable"], {"tenant": TENANT, "correlations": [named(1)]}, 1600, True),
}  # fmt: skip

STATEMENTS = {name: Asked(*one) for name, one in ASKED.items()}


# Whole files and single statements that nobody waits for at every payment, and why.
WHOLE = "goes through all that it is about: whole tables, a tenant to be emptied or a page of figures"
SMALL = "its tables have a row per processor, endpoint, tenant or worker"
BY_HAND = "an operator's decision about one row, found by its key"
INSERT = "adds rows, looks nothing up"
HOME = "read for the operators' home, from a bounded number of rows by a partial index"
LIST = (
    "a page of a list that a person reads: planned each time, with a limit of rows and of time (test_payment_list.py)"
)
PART = "text that another statement is made of, or no access to a table"

NOT_HOT: dict[str, str] = {
    **dict.fromkeys(("ledger/prove", "check/recount", "check/purged", "purge/purge_rest", "purge/hold_statistics", "purge/purge_statistics", "figures/trim", "entries/totals",
        "outbound/replayable", "outbound/trim_endpoints", "outbound/close_tenant"), WHOLE),
    **dict.fromkeys(("search/search", "search/count", "search/limits", "listing/refunds", "listing/disputes", "discrepancies/listed"), LIST),
    **{f"routing/{name}": SMALL for name in SQL["routing"]}, "takers/waiting": HOME,
    **{f"{file}/{name}": HOME for file in SQL if file.startswith("attention_") for name in SQL[file]},
    **dict.fromkeys(("events/positions", "check/stream", "check/accounts", "purge/hold_sandbox", "purge/purge_stream", "accounts/names", "dry_run/rules", "export/live_subscriptions",
        "subscriptions/fee_share", "merchant/unpaid", "merchant/go_live", "outbound/job_secret", "outbound/signing_of",
        "inbound/account", "inbound/polled", "inbound/position", "inbound/keep_position"), SMALL),
    **dict.fromkeys(("dead_letters/replay", "differences/hold", "differences/book", "reconciliation/stop"), BY_HAND),
    **dict.fromkeys(("disputes/open", "outbound/insert", "outbound/owe_callbacks", "outbound/make_job_secrets", "reconciliation/begin"), INSERT),
    **dict.fromkeys(("settle/columns", "settle/joins", "refunds/columns", "refunds/joins", "inbound/columns", "settle/again", "ledger/errors", "ledger/latest", "export/events_of", "export/own_processors",
        "export/attempts_of", "reconciliation/columns", "refunds/wake", "outbound/wake", "outbound/takeable", "outbound/new_of_source", "outbound/owed_of_source", "purge/purge_clock"), PART),
}  # fmt: skip


@pytest.fixture(scope="module")
def read(_database: None) -> dict[str, dict[str, Read]]:
    found = measure_twice(TABLES, SEED, ROWS, STATEMENTS)
    for name, figures in found.items():
        print(f"\n{name}\n{table_of(figures)}")
    return found


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_reads_what_it_names(read: dict[str, dict[str, Read]], name: str) -> None:
    assert {made: more for made, figures in read.items() if (more := STATEMENTS[name].excess(figures[name]))} == {}


def test_every_statement_has_a_measured_plan_or_a_reason_why_it_is_not_hot() -> None:
    every = {f"{file}/{name}" for file, named in SQL.items() for name in named}
    made_elsewhere = {
        f"{kind}/{name}"
        for kind in ("settle", "refunds", "inbound")
        for name in ("any_open", "due", "take", "standing")
    }  # by queueing.work.table
    looked_at = {name.partition(" ")[0] for name in STATEMENTS} - made_elsewhere

    assert every == looked_at | NOT_HOT.keys()
    assert not looked_at & NOT_HOT.keys()
