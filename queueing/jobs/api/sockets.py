"""`/ws/jobs`: the events of all jobs of a tenant, with the resume rules of payments."""

from queueing.jobs import events
from registry.edge.live_socket import LiveSocket
from registry.tenants.sockets import tenant_authority


class JobsSocket(LiveSocket):
    """All jobs of a tenant, for its members and programs. Events are numbered by the tenant's stream."""

    stream = events.STREAM
    kind = b"job"

    async def authority(self) -> int:
        return await tenant_authority(self, keyless=False)
