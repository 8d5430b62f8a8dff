"""`/ws/jobs`: the events of all jobs of a tenant, or of one job, with the resume rules of payments."""

from uuid import UUID

from queueing.jobs import events, queries
from queueing.jobs.errors import UnknownJob
from registry.data import database, live
from registry.edge.api import ENCODER
from registry.edge.live_socket import LiveSocket
from registry.tenants.sockets import tenant_authority


class JobsSocket(LiveSocket):
    """The jobs of a tenant, for its members and programs. Events are numbered by the tenant's stream; with `?job=ID` there are
    that job's only, numbered by its sequence."""

    stream = events.STREAM
    kind = b"job"

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
