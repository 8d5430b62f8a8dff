"""The dashboard for Grafana, docs/operators/grafana-dashboard.json: a row per part of the service, over the metrics of /metrics.

The data source and the Prometheus job are variables of the dashboard. Gauges that are read from PostgreSQL are the same on every
instance, so that panels show their maximum; what a host counts itself is added up.
"""

import json
from typing import Any, NamedTuple

WIDTH, HEIGHT, COLUMNS = 8, 7, 24  # of a panel, in Grafana's grid of 24 columns
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
RATE = "[$__rate_interval]"


class Curve(NamedTuple):
    """A query of a panel, and the name of what it draws."""

    query: str
    legend: str


class Panel(NamedTuple):
    """A chart. `unit` is one of Grafana's: short, s, bytes, reqps, percentunit."""

    title: str
    unit: str
    curves: tuple[Curve, ...]


def selected(metric: str, *matchers: str) -> str:
    return f"{metric}{{{', '.join(('job=~"$job"', *matchers))}}}"


def per_second(metric: str, by: str = "", *matchers: str) -> Curve:
    """The rate of a counter, by a label or all together."""
    rate = f"(rate({selected(metric, *matchers)}{RATE}))"
    return Curve(f"sum by ({by}) {rate}", f"{{{{{by}}}}}") if by else Curve(f"sum{rate}", "all")


def highest(metric: str, by: str = "", *matchers: str, legend: str = "") -> Curve:
    """The greatest value of a gauge, by labels or of all."""
    labels = [label.strip() for label in by.split(",") if label.strip()]
    names = (
        legend or " ".join(f"{{{{{label}}}}}" for label in labels) or metric.removeprefix("registry_").replace("_", " ")
    )
    return Curve(f"max{f' by ({by})' if by else ''} ({selected(metric, *matchers)})", names)


def added(metric: str, by: str = "", legend: str = "") -> Curve:
    """The sum of a gauge over hosts."""
    name = legend or (f"{{{{{by}}}}}" if by else metric.removeprefix("registry_").replace("_", " "))
    return Curve(f"sum{f' by ({by})' if by else ''} ({selected(metric)})", name)


def percentiles(histogram: str, by: str = "") -> tuple[Curve, ...]:
    """The median, 95 % and 99 % of a histogram; by a label only 95 %."""
    labels = f"le, {by}" if by else "le"
    rate = f"sum by ({labels}) (rate({selected(f'{histogram}_bucket')}{RATE}))"
    if by:
        return (Curve(f"histogram_quantile(0.95, {rate})", f"{{{{{by}}}}} 95 %"),)
    return tuple(Curve(f"histogram_quantile({share}, {rate})", f"{share:.0%}") for share in (0.5, 0.95, 0.99))


def panel(title: str, unit: str, *curves: Curve) -> Panel:
    return Panel(title, unit, curves)


ROWS: dict[str, tuple[Panel, ...]] = {
    "Intake": (
        panel("Payments accepted per second", "reqps", per_second("registry_payments_accepted_total", "outcome")),
        panel("Time to commit a batch", "s", *percentiles("registry_accept_commit_seconds")),
        panel("Answers per second by status", "reqps", per_second("registry_http_requests_total", "status")),
        panel("Answers 5xx per second", "reqps", per_second("registry_http_server_errors_total")),
    ),
    "Settle": (
        panel("Outcomes per second", "reqps", per_second("registry_payments_settled_total", "outcome")),
        panel("From acceptance to the outcome", "s", *percentiles("registry_received_to_settled_seconds")),
        panel("Time to commit a batch of outcomes", "s", *percentiles("registry_settle_commit_seconds")),
        panel(
            "Oldest payment",
            "s",
            highest("registry_queue_oldest_seconds", "", 'queue="payments"', legend="due"),
            highest("registry_queue_unfinished_seconds", "", 'queue="payments"', legend="unfinished"),
        ),
        panel("Dead letters", "short", highest("registry_dead_letters", "status")),
        panel(
            "Refunds and disputes",
            "short",
            highest("registry_refunds_stopped"),
            highest("registry_disputes_due"),
            per_second("registry_refunds_settled_total", "outcome"),
        ),
    ),
    "Processors": (
        panel("Response time now, slowest of a kind", "s", highest("registry_processor_response_seconds", "kind")),
        panel("Time of an answer", "s", *percentiles("registry_processor_seconds", "kind")),
        panel("Answers per second by outcome", "reqps", per_second("registry_processor_seconds_count", "outcome")),
        panel("Processors that are down", "short", highest("registry_processors_down", "how")),
        panel("Breakers", "short", highest("registry_breakers", "kind, state")),
        panel("Discrepancies with processors", "short", highest("registry_open_differences", "kind")),
        panel(
            "Events of processors",
            "reqps",
            per_second("registry_inbound_received_total", "outcome"),
            highest("registry_inbound_dead"),
        ),
    ),
    "Queue": (
        panel("Open rows", "short", highest("registry_queue_rows", "queue, state")),
        panel("Longest due", "s", highest("registry_queue_oldest_seconds", "queue")),
        panel(
            "Workers",
            "short",
            highest("registry_workers_alive", "queue"),
            highest("registry_workers_silent", legend="silent"),
        ),
        panel("Rows in flight against capacity", "percentunit", highest("registry_worker_use_ratio", "queue, pool")),
        panel("Messages per second", "reqps", per_second("registry_queue_messages_total", "operation")),
        panel("Dead messages", "short", highest("registry_dead_messages")),
    ),
    "Webhooks": (
        panel("Tries per second", "reqps", per_second("registry_webhook_tries_total", "outcome")),
        panel("From event to delivery", "s", *percentiles("registry_webhook_latency_seconds")),
        panel(
            "Given up",
            "short",
            highest("registry_webhook_deliveries_failed", legend="deliveries failed"),
            highest("registry_webhook_endpoints_disabled", legend="endpoints disabled"),
        ),
    ),
    "Jobs": (
        panel("Attempts per second", "reqps", per_second("registry_jobs_total", "outcome")),
        panel("Wait until the start", "s", *percentiles("registry_job_wait_seconds")),
        panel("Run time", "s", *percentiles("registry_job_run_seconds")),
        panel("Failed jobs", "short", highest("registry_jobs_failed")),
        panel("Periodic tasks in trouble", "short", highest("registry_chores", "trouble")),
    ),
    "Database": (
        panel("Unavailable", "short", highest("registry_database_away", "instance, how")),
        panel("Connections in use", "percentunit", highest("registry_database_connections_ratio", legend="share")),
        panel(
            "Callers that wait for a connection",
            "short",
            added("registry_database_pool_requests_waiting", "instance"),
        ),
        panel("Errors per second", "reqps", per_second("registry_database_errors_total", "kind")),
        panel("Oldest snapshot", "s", highest("registry_database_snapshot_seconds", legend="age")),
        panel(
            "Replication",
            "s",
            highest("registry_database_replica_seconds", legend="latest replica"),
        ),
        panel(
            "WAL that is kept",
            "bytes",
            highest("registry_database_slot_bytes", legend="unread slot"),
            highest("registry_database_replica_bytes", legend="not replayed"),
        ),
        panel("Statements that are refused", "short", highest("registry_database_statement_refused", "statement")),
    ),
    "Spill and host": (
        panel("Writes that wait", "short", added("registry_spill_records", "instance")),
        panel("Oldest of them", "s", highest("registry_spill_oldest_seconds", "instance")),
        panel(
            "Set aside and refused",
            "short",
            highest("registry_spill_set_aside", "instance", legend="{{instance}} set aside"),
            highest("registry_spill_refuses", "instance", legend="{{instance}} refuses"),
        ),
        panel("Free disk", "percentunit", highest("registry_disk_free_ratio", "instance")),
        panel("Clock, away from PostgreSQL's", "s", highest("registry_clock_offset_seconds", "instance")),
        panel("Redis takes writes", "short", highest("registry_redis_takes_writes", "instance, use")),
    ),
    "Live": (
        panel("Open sockets and long polls", "short", added("registry_live_sockets", "instance")),
        panel("Events per second", "reqps", per_second("registry_live_events_total")),
        panel("Sockets dropped per second", "reqps", per_second("registry_live_sockets_dropped_total")),
    ),
    "Alerts and proofs": (
        panel("Alerts that fire", "short", highest("registry_alerts_firing", "rule, severity")),
        panel("Messages about alerts", "reqps", per_second("registry_alert_messages_total", "outcome")),
        panel(
            "Differences",
            "short",
            highest("registry_ledger_differences", legend="ledger"),
            highest("registry_rollup_differences", legend="roll-ups"),
            highest("registry_book_differences", legend="books"),
            highest("registry_audit_broken", legend="audit trail"),
        ),
    ),
}


def dashboard() -> str:
    """The dashboard as the text of a file that Grafana imports."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        panels.append(
            {"type": "row", "title": title, "collapsed": False, "gridPos": _place(0, top, COLUMNS, 1), "panels": []}
        )
        top += 1
        for n, one in enumerate(row):
            x, y = n * WIDTH % COLUMNS, n * WIDTH // COLUMNS * HEIGHT
            panels.append(_chart(one, _place(x, top + y, WIDTH, HEIGHT)))
        top += -(-len(row) * WIDTH // COLUMNS) * HEIGHT
    for number, placed in enumerate(panels, start=1):
        placed["id"] = number
    found = {
        "title": "Registry",
        "uid": "registry-service",
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_source_variable(), _job_variable()]},
        "panels": panels,
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _chart(one: Panel, place: dict[str, int]) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + n), "datasource": SOURCE, "expr": curve.query, "legendFormat": curve.legend}
        for n, curve in enumerate(one.curves)
    ]
    return {
        "type": "timeseries",
        "title": one.title,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": one.unit, "min": 0, "custom": {"fillOpacity": 10}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets,
    }


def _source_variable() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _job_variable() -> dict[str, Any]:
    return {
        "name": "job",
        "label": "Job",
        "type": "query",
        "datasource": SOURCE,
        "query": "label_values(registry_workers_alive, job)",
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".+",
    }
