-- name: present
-- Whether there is anything to read at all: alerts of the service or a host that are open or of which somebody must still be told,
-- silences, messages to send. Nearly always not, and evaluations are many: the queries of the ORM would cost five times as much.
SELECT
    EXISTS (SELECT FROM registry_alert
        WHERE host = %(host)s AND (resolved_at IS NULL OR (told_at IS NOT NULL AND told_resolved_at IS NULL))),
    EXISTS (SELECT FROM registry_alertsilence WHERE ends_at > %(silenced)s),
    EXISTS (SELECT FROM registry_alertmessage WHERE due_at IS NOT NULL);
