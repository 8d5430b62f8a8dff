-- name: take
-- Take or renew a lease: mine if it has run out, is mine already, or was never taken. By the server's clock, so that those of
-- the hosts need not agree. One that ends later than any that is taken now was taken before that clock was set back, and has run
-- out too. A lease that another process holds is only read: no row is locked or written.
WITH taken AS (
    UPDATE registry_lease SET holder = %(holder)s, until = clock_timestamp() + make_interval(secs => %(seconds)s)
    WHERE name = %(name)s AND (
        holder = %(holder)s OR until < clock_timestamp() OR until > clock_timestamp() + make_interval(secs => %(seconds)s)
    )
    RETURNING name
), added AS (
    INSERT INTO registry_lease (name, holder, until)
    SELECT %(name)s, %(holder)s, clock_timestamp() + make_interval(secs => %(seconds)s)
    WHERE NOT EXISTS (SELECT FROM registry_lease WHERE name = %(name)s)
    ON CONFLICT DO NOTHING
    RETURNING name
)
SELECT name FROM taken UNION ALL SELECT name FROM added;

-- name: release
-- End a lease before its time, so that another process need not wait for it.
DELETE FROM registry_lease WHERE name = %(name)s AND holder = %(holder)s;
