-- name: payment
-- One payment by its correlation id, with the processor that booked it or is being tried.
SELECT p.correlation_id, p.status, p.amount, p.currency, r.name, p.attempt, p.changed_at, p.sequence,
    p.id, p.created_at, p.description, p.method, p.metadata, p.fee, p.refunded, p.code, p.scheduled_for, p.priority, p.return_url
FROM payments_payment p
LEFT JOIN payments_attempt a ON a.tenant_id = p.tenant_id AND a.payment_id = p.id AND a.number = p.attempt
LEFT JOIN payments_processor r ON r.id = coalesce(p.processor_id, a.processor_id)
WHERE p.correlation_id = %(correlation)s AND p.tenant_id + 0 = %(tenant)s;

-- name: attempts
SELECT a.number, r.name, a.reason, a.requested_at, a.outcome, a.code, a.latency_ms, a.started_at
FROM payments_attempt a LEFT JOIN payments_processor r ON r.id = a.processor_id
WHERE a.tenant_id = %(tenant)s AND a.payment_id = %(payment)s
ORDER BY a.number;

-- name: timeline
SELECT e.sequence, e.at, e.status, e.detail, e.kind, e.attempt
FROM payments_paymentevent e
WHERE e.payment_id = %(payment)s AND e.tenant_id = %(tenant)s
ORDER BY e.sequence;

-- name: numbers
-- Open payments are few and have their own index; rates come from the newest events, found by the stream's number.
WITH open AS (
    SELECT status, run_at FROM payments_payment WHERE tenant_id = %(tenant)s AND closed IS NULL
    ORDER BY priority DESC, run_at, id  -- by the index of open rows
), recent AS (
    SELECT e.status, e.sequence FROM payments_paymentevent e
    WHERE e.tenant_id = %(tenant)s AND e.kind = ''
      AND e.position > (SELECT position - 100000 FROM payments_stream WHERE tenant_id = %(tenant)s)
      AND e.at > now() - make_interval(secs => %(rate_over)s)
)
SELECT (SELECT count(*) FROM open WHERE status IN ('processing', 'uncertain')),
       (SELECT count(*) FROM open WHERE status = 'queued' AND run_at <= now()),
       (SELECT coalesce(extract(epoch FROM now() - min(run_at)), 0) FROM open WHERE status = 'queued' AND run_at <= now()),
       (SELECT count(*)::float8 / %(rate_over)s FROM recent WHERE sequence = 1),
       (SELECT count(*)::float8 / %(rate_over)s FROM recent WHERE status IN ('succeeded', 'failed'));

-- name: processors
WITH share AS (
    SELECT processor_id, sum(payments) AS payments
    FROM payments_rollup
    WHERE tenant_id = %(tenant)s AND width = 1 AND starts_at > now() - interval '1 minute'
    GROUP BY processor_id
)
SELECT p.name, p.kind, p.fee, p.options, p.enabled, coalesce(e.breaker, 'closed'), coalesce(e.failing, false),
    coalesce(e.min_response_ms, 0), coalesce(e.trend_ms, 0),
    coalesce(s.payments / nullif(sum(s.payments) OVER (), 0), 0)
FROM payments_processor p
LEFT JOIN payments_endpoint e ON e.key = p.kind || ':' || coalesce(nullif(p.url, ''), p.id::text)
LEFT JOIN share s ON s.processor_id = p.id
WHERE p.tenant_id = %(tenant)s
ORDER BY p.fee, p.name;

-- name: series
-- One row per second, zeros included; the last second is not over and is left out.
WITH seconds AS (
    SELECT generate_series(date_trunc('second', %(since)s::timestamptz), date_trunc('second', now()) - interval '1 second',
        interval '1 second') AS at
), counted AS (
    SELECT date_trunc('second', e.at) AS at,
        count(*) FILTER (WHERE e.sequence = 1) AS accepted,
        count(*) FILTER (WHERE e.status IN ('succeeded', 'failed')) AS settled
    FROM payments_paymentevent e
    WHERE e.tenant_id = %(tenant)s AND e.kind = ''
      AND e.position > (SELECT position - 200000 FROM payments_stream WHERE tenant_id = %(tenant)s)
      AND e.at >= date_trunc('second', %(since)s::timestamptz)
    GROUP BY 1
)
SELECT s.at, coalesce(c.accepted, 0), coalesce(c.settled, 0)
FROM seconds s LEFT JOIN counted c USING (at)
ORDER BY s.at;
