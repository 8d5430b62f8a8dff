-- name: refunds
-- A page of refunds, the newest first: ids grow with time. `most` rows are looked through; `ends` is the last of them. Planned each
-- time (prepare=False), by the filters that are set.
SELECT r.id, r.public_id, p.correlation_id, r.status, r.amount, r.currency, r.reason, r.reference, r.code, r.external, r.actor,
    x.name, r.stopped_at IS NOT NULL AND r.closed IS NULL, r.created_at, r.changed_at, once.ends
FROM (
    SELECT (SELECT id FROM payments_refund WHERE tenant_id = %(tenant)s AND id < %(before)s
            ORDER BY id DESC OFFSET %(most)s - 1 LIMIT 1) AS ends
) once
LEFT JOIN LATERAL (
    SELECT r.* FROM (
        SELECT * FROM payments_refund WHERE tenant_id = %(tenant)s AND id < %(before)s ORDER BY id DESC LIMIT %(most)s
    ) r
    WHERE (%(status)s::text IS NULL OR r.status = %(status)s)
        AND (NOT %(stopped)s OR (r.closed IS NULL AND r.stopped_at IS NOT NULL))
        AND r.created_at >= %(since)s AND r.created_at <= %(until)s
        AND (%(text)s = '' OR r.reference = %(text)s OR r.public_id BETWEEN %(first_id)s AND %(last_id)s
            OR r.reason ILIKE %(pattern)s
            OR (SELECT correlation_id FROM payments_payment p WHERE p.tenant_id = %(tenant)s AND p.id = r.payment_id)
                BETWEEN %(first_id)s AND %(last_id)s)
    ORDER BY r.id DESC LIMIT %(limit)s
) r ON true
LEFT JOIN LATERAL (
    SELECT correlation_id FROM payments_payment p WHERE p.tenant_id = %(tenant)s AND p.id = r.payment_id OFFSET 0
) p ON true
LEFT JOIN payments_processor x ON x.id = r.processor_id
ORDER BY r.id DESC;

-- name: disputes
-- A page of disputes, the newest first, as above.
SELECT d.id, d.reference, p.correlation_id, d.status, d.amount, d.currency, d.reason, d.due_by, d.withdrawn, d.opened_at, d.closed_at,
    x.name, x.kind, x.url, once.ends
FROM (
    SELECT (SELECT id FROM payments_dispute WHERE tenant_id = %(tenant)s AND id < %(before)s
            ORDER BY id DESC OFFSET %(most)s - 1 LIMIT 1) AS ends
) once
LEFT JOIN LATERAL (
    SELECT d.* FROM (
        SELECT * FROM payments_dispute WHERE tenant_id = %(tenant)s AND id < %(before)s ORDER BY id DESC LIMIT %(most)s
    ) d
    WHERE CASE %(status)s::text
            WHEN 'needs_response' THEN d.closed_at IS NULL AND d.status LIKE '%%needs_response'
            WHEN 'under_review' THEN d.closed_at IS NULL AND d.status NOT LIKE '%%needs_response'
            WHEN 'won' THEN d.closed_at IS NOT NULL AND d.withdrawn <= 0
            WHEN 'lost' THEN d.closed_at IS NOT NULL AND d.withdrawn > 0
            ELSE true
        END
        AND d.opened_at >= %(since)s AND d.opened_at <= %(until)s
        AND (%(text)s = '' OR d.reference = %(text)s OR d.reason ILIKE %(pattern)s
            OR (SELECT correlation_id FROM payments_payment p WHERE p.tenant_id = %(tenant)s AND p.id = d.payment_id)
                BETWEEN %(first_id)s AND %(last_id)s)
    ORDER BY d.id DESC LIMIT %(limit)s
) d ON true
LEFT JOIN LATERAL (
    SELECT correlation_id FROM payments_payment p WHERE p.tenant_id = %(tenant)s AND p.id = d.payment_id OFFSET 0
) p ON true
LEFT JOIN payments_processor x ON x.id = d.processor_id
ORDER BY d.id DESC;
