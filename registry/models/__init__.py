"""The tables of registry: tenants and access, the audit trail, checks of the books, alerts, hosts, and leases."""

from registry.models.alerts import Alert, AlertMessage, AlertSilence, AlertWatch
from registry.models.hosts import HOST_SILENT_AFTER, Host
from registry.models.lease import Lease
from registry.models.tenants import (
    PATIENCE,
    SLUG,
    ApiKey,
    ApiRequest,
    AuditEntry,
    AuditHead,
    AuditLink,
    BookCheck,
    Flag,
    Membership,
    Tenant,
    known_time_zone,
)

__all__ = [
    "HOST_SILENT_AFTER",
    "PATIENCE",
    "SLUG",
    "Alert",
    "AlertMessage",
    "AlertSilence",
    "AlertWatch",
    "ApiKey",
    "ApiRequest",
    "AuditEntry",
    "AuditHead",
    "AuditLink",
    "BookCheck",
    "Flag",
    "Host",
    "Lease",
    "Membership",
    "Tenant",
    "known_time_zone",
]
