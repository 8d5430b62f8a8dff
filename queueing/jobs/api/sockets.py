"""`/ws/jobs`: the events of all jobs of a tenant, or of one job, with the resume rules of payments."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec

from queueing.jobs import events, queries
from queueing.jobs.errors import UnknownJob
from queueing.jobs.queries import JobFilters
from queueing.models import JobStatus
from registry.data import database, live
from registry.edge.api import ENCODER
from registry.edge.live_socket import BadMessage, LiveSocket, Ping, Resume, Subscribe
from registry.tenants.sockets import tenant_authority

LIST_LIMIT, LIST_AT_MOST = 50, 200  # jobs of a list that names no limit, and of any

_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class ListedJobs(msgspec.Struct, forbid_unknown_fields=True):
    """What a list shows, as in `GET /jobs`."""

    status: JobStatus | None = None
    kind: str | None = None
    from_: _Moment | None = msgspec.field(name="from", default=None)
    to: _Moment | None = None


class ListJobs(msgspec.Struct, tag_field="type", tag="list", forbid_unknown_fields=True):
    """A page of jobs over the socket."""

    id: int | str
    filter: ListedJobs = msgspec.field(default_factory=ListedJobs)
    limit: Annotated[int, msgspec.Meta(ge=1, le=LIST_AT_MOST)] = LIST_LIMIT


class JobsSocket(LiveSocket):
    """The jobs of a tenant, for its members and programs. Events are numbered by the tenant's stream; with `?job=ID` there are
    that job's only, numbered by its sequence."""

    stream = events.STREAM
    kind = b"job"
    decoder = msgspec.json.Decoder(Resume | ListJobs | Subscribe | Ping)

    async def answer(self, message: Any) -> None:
        match message:
            case Subscribe() | ListJobs() if self.query("job"):
                raise BadMessage("this socket shows one job")
            case Subscribe(ids=ids):
                await self.subscribe(ids)
            case ListJobs():
                await self.send_page(message)
            case _:
                await super().answer(message)

    async def send_page(self, message: ListJobs) -> None:
        wanted = message.filter
        if "\0" in (wanted.kind or ""):
            raise BadMessage("kind contains NUL")
        filters = JobFilters(wanted.status, wanted.kind, wanted.from_, wanted.to)
        page = await queries.page_of(self.tenant_id, filters, limit=message.limit)
        found = {"type": "list", "id": message.id, "items": page["items"], "total": page["total"]}
        await self.send_message(ENCODER.encode(found))

    async def authority(self) -> int:
        tenant_id = await tenant_authority(self, keyless=False)
        if self.query("job"):
            await queries.job_of(tenant_id, self._job())
        return tenant_id

    def _job(self) -> UUID:
        """The job that the address names. Raises UnknownJob (404)."""
        try:
            return UUID(self.query("job"))
        except ValueError:
            raise UnknownJob from None

    def subjects(self) -> tuple[str, ...]:
        return (str(self._job()),) if self.query("job") else ()

    def number(self, event: live.Event) -> int:
        return event.sequence if self.query("job") else event.position

    async def greet(self) -> None:
        if self.query("job"):
            async with database.own_connection():  # this task lives as long as the socket
                found = queries.shown(await queries.job_of(self.tenant_id, self._job()))
            self.reader.sent = found["sequence"]
            await self.send_message(ENCODER.encode({"type": "job", "sequence": found["sequence"], "job": found}))

    async def past(self, after: int) -> list[live.Event]:
        if self.query("job"):
            return await self.stream.of_subject(self.tenant_id, self._job(), after)
        return await super().past(after)
