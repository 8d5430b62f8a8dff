-- name: listed
-- A page of discrepancies, the newest first: ids grow with time. `most` rows are looked through; `ends` is the last of them. Planned
-- each time (prepare=False), by the filters that are set.
SELECT d.id, d.kind, d.correlation_id, d.payment_id IS NOT NULL, d.reference, d.our_status, d.our_amount, d.our_currency, d.our_refunded,
    d.their_amount, d.their_currency, d.their_refunded, x.name, d.requested_at, d.found_at, d.resolution, d.resolved_at, d.resolved_by,
    d.note, once.ends
FROM (
    SELECT (SELECT id FROM payments_difference WHERE tenant_id = %(tenant)s AND id < %(before)s
            ORDER BY id DESC OFFSET %(most)s - 1 LIMIT 1) AS ends
) once
LEFT JOIN LATERAL (
    SELECT d.* FROM (
        SELECT * FROM payments_difference WHERE tenant_id = %(tenant)s AND id < %(before)s ORDER BY id DESC LIMIT %(most)s
    ) d
    WHERE (NOT %(open)s OR d.resolution = '')
        AND (%(resolution)s::text IS NULL OR d.resolution = %(resolution)s)
        AND (%(kind)s::text IS NULL OR d.kind = %(kind)s)
        AND d.found_at >= %(since)s AND d.found_at <= %(until)s
        AND (%(text)s = '' OR d.reference = %(text)s OR d.correlation_id BETWEEN %(first_id)s AND %(last_id)s
            OR d.note ILIKE %(pattern)s)
    ORDER BY d.id DESC LIMIT %(limit)s
) d ON true
LEFT JOIN payments_processor x ON x.id = d.processor_id
ORDER BY d.id DESC;
