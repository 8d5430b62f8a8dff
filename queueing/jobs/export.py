"""Export and erasure of jobs, their results and files, and schedules: what is personal, and what closing a tenant does to them."""

from pathlib import Path

from registry.data import database
from registry.tenants import erasure, export
from registry.tenants.export import Table

SQL = database.statements(Path(__file__).parent / "sql" / "export.sql")

export.TABLES |= {
    "queueing.Job": Table(hidden=("sealed", "fingerprint")),
    "queueing.JobSchedule": Table(hidden=("sealed",)),
}
export.LEFT_OUT["queueing.JobLimit"] = "counts of all tenants' jobs of a kind together"

erasure.PERSONAL |= {
    "queueing.Job": {
        "input": "'{}'",
        "sealed": "NULL",
        "fingerprint": "''::bytea",
        "unique_key": "NULL",
        "callback_url": "''",
        "progress_message": "''",
        "error": "''",
        "traceback": "''",
    },
    "queueing.JobEvent": {"detail": "''", "progress": "(t.progress - 'message')"},
    "queueing.JobResult": {"body": "'null'"},
    "queueing.JobFile": {"name": "''"},
    "queueing.JobFileChunk": {"data": "''::bytea"},
    "queueing.JobSchedule": {"input": "'{}'", "sealed": "NULL", "callback_url": "''"},
}
erasure.CLOSING.append(SQL["close_tenant"])
erasure.MUST_END["jobs that are not over"] = SQL["open_jobs"]
