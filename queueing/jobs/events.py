"""The numbered events of jobs: their live messages, and the stream that reads them back from PostgreSQL."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from queueing.jobs.decisions import LOST, JobClaim, JobSettlement
from queueing.jobs.job import Key
from registry.data import database, live
from registry.data.stream import EventStream
from registry.edge.api import ENCODER, iso
from registry.telemetry import changes
from registry.telemetry.context import REQUEST

SQL = database.statements(Path(__file__).parent / "sql" / "events.sql")
NAME = "jobs"  # of the stream


class JobChange(NamedTuple):
    """A change of a job, as the statements return it."""

    tenant_id: int
    job_id: int
    position: int
    uuid: UUID
    kind: str
    status: str
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    at: datetime
    sequence: int
    code: str = ""
    detail: str = ""
    done: int | None = None
    total: int | None = None
    message: str = ""

    @property
    def subject(self) -> UUID:
        return self.uuid

    @property
    def type(self) -> str:
        """The type of its webhook event."""
        return f"job.{self.status}"

    def data(self) -> dict[str, Any]:
        return status_body(self)


def status_body(change: JobChange) -> dict[str, Any]:
    """The job's status object, which `GET /jobs/{id}` extends and live messages carry (contract section 6)."""
    body: dict[str, Any] = {
        "id": str(change.uuid),
        "kind": change.kind,
        "status": change.status,
        "attempts": change.attempts,
        "createdAt": iso(change.created_at),
        "startedAt": change.started_at and iso(change.started_at),
        "finishedAt": change.finished_at and iso(change.finished_at),
        "updatedAt": iso(change.at),
        "sequence": change.sequence,
    }
    if change.done is not None:
        body["progress"] = {"done": change.done, "total": change.total, "message": change.message}
    if change.code:  # a detail alone is a remark, such as who queued it again
        body["error"] = {"code": change.code, "detail": change.detail}
    return body


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(JobChange)


def event(change: JobChange) -> live.Event:
    body = ENCODER.encode(status_body(change))
    return live.Event(NAME, change.tenant_id, change.position, str(change.uuid), change.sequence, body)


def from_row(row: database.Row) -> live.Event:
    return event(JobChange._make(row))


def unread(change: JobChange) -> live.Change:
    """The change for `live.publish`: an event takes ten times as long to make, and most are read by nobody."""
    return live.Change(NAME, change.tenant_id, change.position, msgspec.Raw(_encoder.encode(change)))


def line(of: JobClaim | JobChange, was: str, to: str, why: str = "", *, request_id: str = "") -> changes.ChangeLine:
    """The log line of a change of state. The texts of errors are left out: they may hold data of the job."""
    attempt = of.shown if isinstance(of, JobClaim) else of.attempts
    ids = {"job": of.uuid, "kind": of.kind, "attempt": attempt, "request_id": request_id}
    return changes.change("job", was, to, tenant=of.tenant_id, why=why, **ids)


def accepted(new: live.Change, requests: Mapping[Key, str] | None = None) -> changes.ChangeLine:
    """The log line of a new job, with the request that made it: `requests` by job, else the one that is under way."""
    change = _decoder.decode(new.row)
    request_id = REQUEST.get() if requests is None else requests[change.tenant_id, change.uuid]
    return line(change, "", change.status, "accepted", request_id=request_id)


def settled_line(settlement: JobSettlement, row: database.Row) -> changes.ChangeLine:
    """The log line of an outcome, with its row of the statement `settle`: canceled where that was requested meanwhile."""
    return line(settlement.claim, "running", row[3], settlement.code)


def claimed(claim: JobClaim) -> live.Change:
    """Of a claim."""
    why = (LOST, "the worker of the attempt before was lost") if claim.cut_off else ("", "")
    return unread(
        JobChange(
            claim.tenant_id, claim.job_id, claim.position, claim.uuid, claim.kind, "running", claim.shown,
            claim.created_at, claim.started_at, None, claim.started_at, claim.sequence, *why,
        )
    )  # fmt: skip


def settled(settlement: JobSettlement, row: database.Row) -> live.Change:
    """Of an outcome, with what the statement `settle` returned for it."""
    claim = settlement.claim
    _, _, position, status, attempts, at, sequence, *progress = row
    return unread(
        JobChange(
            claim.tenant_id, claim.job_id, position, claim.uuid, claim.kind, status, attempts, claim.created_at,
            claim.started_at, None if status == "queued" else at, at, sequence, settlement.code, settlement.error, *progress,
        )
    )  # fmt: skip


async def since(tenant: int, after: int, limit: int) -> list[live.Event]:
    """A tenant's events numbered above `after`, in order, at most `limit`."""
    rows = await database.fetch(SQL["since"], {"tenant": tenant, "after": after, "limit": limit})
    return [from_row(row) for row in rows]


async def of_job(tenant: int, uuid: UUID, after: int) -> list[live.Event]:
    """One job's events with a sequence above `after`, in order."""
    rows = await database.fetch(SQL["of_job"], {"tenant": tenant, "uuid": uuid, "after": after})
    return [from_row(row) for row in rows]


async def positions(tenants: Sequence[int]) -> dict[int, int]:
    """The numbers of these tenants' latest events."""
    return dict(await database.fetch(SQL["positions"], {"tenants": list(tenants)}))


STREAM = EventStream(
    name=NAME, since=since, of_subject=of_job, positions=positions, event=lambda row: event(_decoder.decode(row))
)
