"""Submit jobs from the product's own code: routes, pages and commands that leave long work to a job."""

from typing import Any
from uuid import uuid4

import msgspec

from queueing.jobs import kinds, secrets, store
from queueing.jobs.job import JobReceipt, NewJob
from queueing.jobs.requests import RESULT_TTL, input_faults
from queueing.models import Worker
from registry.errors import Invalid


async def start(
    kind: str, *, tenant_id: int, input: dict[str, Any] | msgspec.Struct | None = None, unique_key: str | None = None
) -> JobReceipt:
    """Make a job of this kind durable. Its receipt names the job at work where there is one with the same unique key.

    Raises Invalid (422), Unavailable (503). The caller has checked that the job may be submitted.
    """
    found, id = kinds.KINDS[kind], uuid4()
    content = msgspec.json.encode(input or {})
    if faults := input_faults(found, content):
        raise Invalid(errors=faults)
    shown, sealed = secrets.divided(found, content, place=secrets.place(tenant_id, id))
    job = NewJob(
        tenant_id=tenant_id,
        id=id,
        kind=kind,
        input=shown,
        content=content,
        sealed=sealed,
        unique_key=unique_key,
        max_attempts=found.attempts,
        timeout=found.timeout,
        result_ttl=RESULT_TTL,
    )
    return await store.submit(job)


async def has_workers() -> bool:
    """Whether a worker that runs jobs is alive. Without one, long work is done where it is asked for."""
    return await Worker.async_objects.all().alive().filter(queue=store.QUEUE).aexists()
