"""All metrics of the service."""

from prometheus_client import Counter, Gauge, Histogram

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SLOW = (0.005, 0.025, 0.1, 0.25, 1, 5, 30, 60, 300, 1800, 3600, 6 * 3600, 24 * 3600)  # an attempt may run for a day

ACCEPTED = Counter("registry_payments_accepted_total", "Payments made durable", ["outcome"])
ACCEPT_BATCH = Histogram(
    "registry_accept_batch_rows", "Payments per commit", buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500)
)
ACCEPT_SECONDS = Histogram("registry_accept_commit_seconds", "Time to commit a batch of payments", buckets=_FAST)
SETTLED = Counter("registry_payments_settled_total", "Outcomes written", ["outcome"])
SETTLE_SECONDS = Histogram("registry_settle_commit_seconds", "Time to commit a batch of outcomes", buckets=_FAST)
SEND_SECONDS = Histogram(
    "registry_processor_seconds", "Time a processor took to answer", ["kind", "outcome"], buckets=_FAST
)
INLINE = Counter("registry_payments_inline_total", "Payments the web process was to send itself", ["outcome"])
RESPONSE_SECONDS = Gauge(
    "registry_processor_response_seconds",
    "How long the slowest processor's address takes to answer now, as measured by workers in the last minute",
    ["kind"],
    multiprocess_mode="livemax",
)
REFUNDS = Counter("registry_refunds_settled_total", "Outcomes of refunds written", ["outcome"])
JOBS = Counter("registry_jobs_total", "Outcomes of attempts of jobs written", ["kind", "outcome"])
JOB_WAIT = Histogram(
    "registry_job_wait_seconds", "From a job's due time to the start of an attempt", ["kind"], buckets=_SLOW
)
JOB_SECONDS = Histogram("registry_job_run_seconds", "Time that attempts of jobs ran", ["kind"], buckets=_SLOW)
LATENCY = Histogram("registry_received_to_settled_seconds", "From acceptance to the final outcome", buckets=_FAST)
WEBHOOK_TRIES = Counter("registry_webhook_tries_total", "Tries to deliver a webhook", ["outcome"])
WEBHOOK_LATENCY = Histogram("registry_webhook_latency_seconds", "From fan-out to delivery", buckets=_FAST)
LEDGER_PROOFS = Counter("registry_ledger_proofs_total", "Proofs of the ledger, sound and not", ["verdict"])
INBOUND_RECEIVED = Counter(
    "registry_inbound_received_total", "Events of processors made durable", ["source", "outcome"]
)
INBOUND_COMMIT_SECONDS = Histogram(
    "registry_inbound_commit_seconds", "Time to commit a batch of events of processors", buckets=_FAST
)
INBOUND_HANDLED = Counter("registry_inbound_handled_total", "Inbound events by outcome of the attempt", ["outcome"])
INBOUND_SECONDS = Histogram(
    "registry_inbound_received_to_done_seconds", "Time from receipt of an inbound event to its outcome", buckets=_FAST
)
DIFFERENCES = Counter("registry_differences_total", "Differences between processors' bookings and ours", ["kind"])
JANITOR = Counter("registry_janitor_looks_total", "Payments and refunds that the janitor looked up", ["what", "answer"])
AUDIT_PROOFS = Counter("registry_audit_proofs_total", "Proofs of the audit trail, sound and not", ["verdict"])
LIVE_EVENTS = Counter("registry_live_events_total", "Events handed to sockets and long polls")
LIVE_DROPPED = Counter("registry_live_sockets_dropped_total", "Sockets closed because they were too slow")
LIVE_SOCKETS = Gauge("registry_live_sockets", "Open sockets and long polls", multiprocess_mode="livesum")
DB_ERRORS = Counter("registry_database_errors_total", "Errors of the connection to PostgreSQL", ["kind"])
DB_AWAY = Gauge(
    "registry_database_away",
    "Whether PostgreSQL is unavailable or read-only, as seen by a process",
    ["how"],
    multiprocess_mode="livemax",
)
DB_WAITING = Gauge(
    "registry_database_pool_requests_waiting",
    "Callers that wait for a connection of their process's pool",
    multiprocess_mode="livesum",
)
DB_REFUSED = Gauge(
    "registry_database_statement_refused",
    "Statements that PostgreSQL has refused for a minute or longer",
    ["statement"],
    multiprocess_mode="livemax",
)
REPLICA_LAG = Gauge(
    "registry_replica_lag_seconds",
    "How far the replica of DATABASE_READ_URL may be behind; +Inf while it is away",
    multiprocess_mode="livemax",
)
REDIS_ERRORS = Counter("registry_redis_errors_total", "Uses of Redis that failed", ["use", "trouble"])
SPILL_APPENDED = Counter("registry_spill_appended_total", "Writes that the spill made durable", ["kind"])
SPILL_DRAINED = Counter("registry_spill_drained_total", "Writes that left the spill", ["kind", "outcome"])
SPILL_RECORDS = Gauge(
    "registry_spill_records", "Writes that wait for PostgreSQL", ["kind"], multiprocess_mode="livesum"
)
SPILL_BYTES = Gauge("registry_spill_bytes", "What they take", ["kind"], multiprocess_mode="livesum")
SPILL_OLDEST = Gauge(
    "registry_spill_oldest_seconds", "How long the oldest has waited", ["kind"], multiprocess_mode="livemax"
)
SPILL_REFUSES = Gauge(
    "registry_spill_refuses", "1 where the spill refuses writes, 0 where not", ["kind"], multiprocess_mode="livemax"
)
# The message queue, all tenants together: under our names and under those of its contract (section 1.5).
QUEUE_REQUESTS = Counter("registry_queue_requests_total", "Calls of the message queue", ["operation"])
QUEUE_MESSAGES = Counter("registry_queue_messages_total", "Messages through the message queue", ["operation"])
QUEEN = {
    name: Counter(f"queen_cluster_{name}_total", text)
    for name, text in (
        ("push_requests", "Pushes"),
        ("push_messages", "Messages pushed"),
        ("pop_requests", "Pops"),
        ("pop_messages", "Messages popped"),
        ("ack_requests", "Acks"),
        ("ack_messages", "Messages done"),
        ("dlq", "Messages that became dead letters"),
    )
}
REQUESTS = Counter("registry_http_requests_total", "Answers given", ["method", "status"])
REQUESTS_FAILED = Counter("registry_http_server_errors_total", "Answers 5xx, without those of /health")
REQUEST_LOG = Counter("registry_request_log_total", "Entries of the log of API requests", ["outcome"])
LOG_DROPPED = Counter("registry_log_lines_dropped_total", "Lines of the log that nobody read in time")
TRACE_SPANS = Counter("registry_trace_spans_total", "Spans of traces that were sent, or lost and why", ["outcome"])
ALERTS_FIRING = Gauge(
    "registry_alerts_firing",
    "Alerts that fire: of this host, and those of the service on the host that evaluates them",
    ["rule", "severity"],
    multiprocess_mode="livemax",
)
ALERT_MESSAGES = Counter(
    "registry_alert_messages_total", "Attempts to send a message about alerts", ["channel", "outcome"]
)
