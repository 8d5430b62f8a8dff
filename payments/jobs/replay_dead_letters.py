"""Job `payments.replay_dead_letters`: try payments again that had run out of attempts."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from payments.models import DeadLetter
from payments.settle import dead_letters
from payments.settle.dead_letters import BookedAsExternal
from queueing.jobs.kinds import Context, kind

PAGE = 500  # dead letters read at a time
TIMEOUT = 3600.0  # seconds

Moment = Annotated[datetime, Meta(tz=True)]


class ReplayInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The open dead letters to replay: of these times, with this code; all of the tenant's without any."""

    reason: Annotated[str, Meta(min_length=1, max_length=500, description="for the audit trail")]
    code: Annotated[str, Meta(max_length=50)] | None = None
    from_: Moment | None = msgspec.field(name="from", default=None)
    to: Moment | None = None


@kind(
    "payments.replay_dead_letters", input=ReplayInput, runs="loop", scope="admin", timeout=TIMEOUT, tenant_concurrency=1
)
async def replay_dead_letters(context: Context, asked: ReplayInput) -> dict[str, int]:
    """Try dead letters again."""
    letters = DeadLetter.async_objects.filter(tenant_id=context.tenant_id, resolution="", **_conditions(asked))
    total, seen, replayed, external = await letters.acount(), 0, 0, 0
    last = 0
    while page := [letter async for letter in letters.filter(pk__gt=last).order_by("pk")[:PAGE]]:
        for letter in page:
            context.progress(seen, total, "dead letters")
            try:
                replayed += await dead_letters.replay(
                    dead_letter_id=letter.pk, actor=f"job {context.job_id}", reason=asked.reason
                )
            except BookedAsExternal:
                external += 1
            seen, last = seen + 1, letter.pk
    context.progress(seen, max(seen, total), "dead letters")
    return {"replayed": replayed, "bookedAsExternal": external, "resolvedMeanwhile": seen - replayed - external}


def _conditions(asked: ReplayInput) -> dict[str, object]:
    wanted = {"code": asked.code, "created_at__gte": asked.from_, "created_at__lte": asked.to}
    return {name: value for name, value in wanted.items() if value is not None}
