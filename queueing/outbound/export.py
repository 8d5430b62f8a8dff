"""Export and erasure of outbound webhooks: which columns are personal, and what closing a tenant does to its endpoints."""

from pathlib import Path

from registry.data import database
from registry.tenants import erasure

SQL = database.statements(Path(__file__).parent / "sql" / "outbound.sql")

_OURS = "written by the service, about events and not about people"

erasure.PERSONAL |= {
    "queueing.WebhookDelivery": {"body": "''", "error": "''", "callback_url": "''"},
    "queueing.WebhookAttempt": {"body": "''", "headers": "NULL", "error": "''"},
    "queueing.WebhookEndpoint": {"url": "''", "description": "''", "secrets": "''::bytea"},
    "queueing.JobSecret": {"sealed": "''::bytea"},
}
erasure.ONLY["queueing.WebhookDelivery"] = (
    "t.closed IS NOT NULL"  # what a worker will send stays whole until it is sent
)
erasure.KEPT |= dict.fromkeys(
    (
        "queueing.WebhookEndpoint.events",
        "queueing.WebhookEndpoint.positions",
        "queueing.WebhookEndpoint.disabled_reason",
        "queueing.WebhookAttempt.signature",
    ),
    _OURS,
)
erasure.CLOSING.append(SQL["close_tenant"])
