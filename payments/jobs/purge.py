"""Job `payments.purge`: empty a sandbox of any size, in slices."""

from datetime import datetime
from typing import Annotated

import msgspec

from payments.books import purge as purging
from payments.errors import LiveTenant
from queueing.jobs.kinds import Context, JobFailed, kind

SLICE_SECONDS = 1.0  # between checkpoints
TIMEOUT = 6 * 3600.0  # seconds


class PurgeInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Payments created later stay. Without a time: all, also those created while the job runs."""

    before: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


@kind("payments.purge", input=PurgeInput, runs="loop", timeout=TIMEOUT, tenant_concurrency=1)
async def purge(context: Context, asked: PurgeInput) -> dict[str, int]:
    """Empty a sandbox tenant."""
    removed = 0
    while True:
        try:
            done = await purging.purge(tenant_id=context.tenant_id, within=SLICE_SECONDS, before=asked.before)
        except LiveTenant as error:
            raise JobFailed(error.detail, code="live_tenant") from None
        removed += done.payments
        context.progress(removed, removed + done.left, "payments removed")
        if not done.left:
            return {"payments": removed}
