-- name: facts
-- What explains one payment on its page, in one read: its last attempt, its latest dead letter, the refund that matters most, its
-- disputes, an open discrepancy, and whether a processor could take it. Discrepancies are found by their key, the correlation id; those
-- of a second booking have its reference as key, and are few.
SELECT jsonb_build_object(
    'now', now(), 'id', p.id, 'status', p.status, 'code', p.code, 'amount', p.amount, 'currency', p.currency,
    'attempt', p.attempt, 'tries', p.attempt - p.tries_from, 'createdAt', p.created_at, 'changedAt', p.changed_at, 'dueAt', p.run_at,
    'scheduledFor', p.scheduled_for, 'wanted', p.wanted_processor, 'canceling', p.canceling, 'fee', coalesce(p.fee, 0),
    'refunded', p.refunded, 'owedBack', p.owed_back, 'mode', t.mode,
    'processor', coalesce(r.name, ''), 'kind', coalesce(r.kind, ''), 'url', coalesce(r.url, ''),
    'last', CASE WHEN a.number IS NOT NULL THEN jsonb_build_object(
        'outcome', a.outcome, 'code', a.code, 'reference', a.reference, 'action', a.action, 'at', a.started_at,
        'asked', (SELECT count(*) - 1 FROM payments_attempt s
            WHERE s.tenant_id = a.tenant_id AND s.payment_id = a.payment_id AND s.requested_at = a.requested_at)) END,
    'letter', (SELECT jsonb_build_object('id', l.id, 'code', l.code, 'resolution', l.resolution, 'resolvedBy', l.resolved_by,
            'resolvedAt', l.resolved_at, 'at', l.created_at)
        FROM payments_deadletter l WHERE l.payment_id = p.id AND l.tenant_id + 0 = p.tenant_id ORDER BY l.id DESC LIMIT 1),
    'refund', (SELECT jsonb_build_object('id', f.id, 'amount', f.amount, 'status', f.status, 'code', f.code, 'attempt', f.attempt,
            'stopped', f.stopped_at IS NOT NULL, 'external', f.external)
        FROM payments_refund f WHERE f.payment_id = p.id AND f.tenant_id + 0 = p.tenant_id
        ORDER BY f.stopped_at IS NOT NULL AND f.settled_at IS NULL DESC, f.number DESC LIMIT 1),
    'dispute', (SELECT jsonb_build_object('reference', d.reference, 'amount', d.amount, 'currency', d.currency, 'reason', d.reason,
            'status', d.status, 'dueBy', d.due_by, 'withdrawn', d.withdrawn, 'closed', d.closed_at IS NOT NULL)
        FROM payments_dispute d WHERE d.payment_id = p.id AND d.tenant_id + 0 = p.tenant_id
        ORDER BY d.closed_at IS NULL DESC, d.withdrawn > 0 DESC, d.id DESC LIMIT 1),
    'discrepancy', (SELECT jsonb_build_object('id', x.id, 'kind', x.kind, 'processor', coalesce(y.name, ''),
            'ourStatus', x.our_status, 'ourAmount', x.our_amount, 'ourCurrency', x.our_currency, 'ourRefunded', x.our_refunded,
            'theirAmount', x.their_amount, 'theirCurrency', x.their_currency, 'theirRefunded', x.their_refunded,
            'reference', x.reference)
        FROM (
            SELECT * FROM payments_difference
            WHERE key = p.correlation_id::text AND tenant_id + 0 = p.tenant_id AND resolution || '' = ''
            UNION ALL
            SELECT * FROM payments_difference
            WHERE tenant_id = p.tenant_id AND kind = 'duplicate' AND resolution = '' AND correlation_id = p.correlation_id
        ) x LEFT JOIN payments_processor y ON y.id = x.processor_id
        ORDER BY x.id DESC LIMIT 1),
    'processors', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', c.name, 'enabled', c.enabled,
            'onlyByName', c.options -> 'onlyByName' = 'true', 'breaker', coalesce(e.breaker, 'closed'),
            'failing', coalesce(e.failing AND e.polled_at > now() - interval '20 seconds', false)) ORDER BY c.fee, c.name), '[]')
        FROM payments_processor c LEFT JOIN payments_endpoint e ON e.key = c.kind || ':' || coalesce(nullif(c.url, ''), c.id::text)
        WHERE c.tenant_id = p.tenant_id AND p.status = 'queued')
)
FROM payments_payment p
JOIN registry_tenant t ON t.id = p.tenant_id
LEFT JOIN payments_attempt a ON a.tenant_id = p.tenant_id AND a.payment_id = p.id AND a.number = p.attempt
LEFT JOIN payments_processor r ON r.id = coalesce(p.processor_id, a.processor_id)
WHERE p.correlation_id = %(correlation)s AND p.tenant_id + 0 = %(tenant)s;
