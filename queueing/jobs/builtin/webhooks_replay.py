"""Job kind `webhooks.replay`: deliver messages of an endpoint again, however many, in order."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from django_async_backend.db.transaction import async_atomic
from msgspec import Meta

from queueing.jobs.addresses import Faults
from queueing.jobs.kinds import LONGEST_TIMEOUT, Context, JobFailed, kind
from queueing.jobs.queries import job_of
from queueing.models import WebhookEndpoint
from queueing.outbound import deliveries, queries
from queueing.outbound.deliveries import Selection
from queueing.outbound.errors import UnknownWebhookEndpoint
from registry.tenants import audit
from registry.tenants.access import Principal

SLICE = 2000  # deliveries per transaction: the endpoint's own deliveries go on between them
COUNTED = 1_000_000  # deliveries that are counted for the progress; above that the total is unknown
ATTEMPTS = 20  # an attempt goes on where the one before ended


class WebhookReplay(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The input: which deliveries, by the time of their event. Without times: all that are kept."""

    endpoint: UUID
    from_: Annotated[datetime, Meta(tz=True)] | None = msgspec.field(default=None, name="from")
    to: Annotated[datetime, Meta(tz=True)] | None = None
    dead_only: Annotated[bool, Meta(description="only those that were given up")] = True


async def check(principal: Principal, asked: WebhookReplay) -> Faults:
    """Faults of the input: an endpoint that does not exist."""
    try:
        await queries.endpoint_of(principal.tenant_id, asked.endpoint)
    except UnknownWebhookEndpoint as error:
        return [{"field": "endpoint", "message": error.detail}]
    return []


@kind(
    "webhooks.replay",
    input=WebhookReplay,
    runs="loop",
    scope="admin",
    attempts=ATTEMPTS,
    timeout=LONGEST_TIMEOUT,
    check=check,
)
async def replay(context: Context, asked: WebhookReplay) -> dict[str, Any]:
    """Deliver messages of a webhook endpoint again, under the same ids."""
    try:
        endpoint = await queries.endpoint_of(context.tenant_id, asked.endpoint)
    except UnknownWebhookEndpoint as error:
        raise JobFailed(error.detail, code="unknown_endpoint") from error
    # What an earlier attempt replayed, or a worker sent meanwhile, was changed since: no message is replayed twice.
    submitted_at = (await job_of(context.tenant_id, context.job_id)).created_at
    selection = Selection(since=asked.from_, until=asked.to, dead_only=asked.dead_only, unchanged_since=submitted_at)
    counted = await deliveries.replayable(endpoint, **Selection(**selection, limit=COUNTED))
    total = counted if counted < COUNTED else None
    done, after = 0, 0
    while ids := await _slice(context, endpoint, Selection(**selection, after=after, limit=SLICE)):
        done, after = done + len(ids), max(ids)
        context.progress(done, total, "delivered again")
    return {"replayed": done}


async def _slice(context: Context, endpoint: WebhookEndpoint, selection: Selection) -> list[int]:
    async with async_atomic():
        ids = await deliveries.replay_slice(endpoint, **selection)
        if ids:
            await audit.record(
                actor=f"job {context.job_id}",
                action="delivery.replay",
                target=f"webhook endpoint {endpoint.uuid}",
                tenant_id=context.tenant_id,
                rows=len(ids),
            )
    return ids
