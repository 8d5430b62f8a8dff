"""Job kind `queue.rotate`: encrypt the payloads of a tenant's queues again with the current key."""

from typing import Annotated

import msgspec
from msgspec import Meta

from queueing.broker import crypto, rotation
from queueing.broker.rotation import Rotated
from queueing.jobs.kinds import LONGEST_TIMEOUT, Context, JobFailed, JobRetry, kind

NAME = "queue.rotate"


class KeyRotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The input."""

    key: Annotated[str, Meta(max_length=100, description="id of the key that must be the current one")] | None = None


class RotationResult(msgspec.Struct, frozen=True):
    """Payloads that were encrypted again, and those that no key decrypts, which were left as they are."""

    changed: int
    unreadable: int


@kind(NAME, input=KeyRotation, runs="loop", scope="admin", timeout=LONGEST_TIMEOUT, tenant_concurrency=1)
async def rotate(context: Context, asked: KeyRotation) -> RotationResult:
    """Encrypt the payloads of message queues again with the current key."""
    try:
        key = crypto.current_key()
    except crypto.NoKey as error:
        raise JobFailed(error.detail, code="no_key") from error
    if asked.key not in (None, key):  # a worker that was started with other settings; the next one may have these
        raise JobRetry(f"this worker encrypts with the key {key!r}", code="other_key")

    def report(now: Rotated) -> None:
        context.progress(now.seen, now.total, f"{now.changed:,} re-encrypted")

    done = await rotation.rotate(context.tenant_id, progress=report)
    return RotationResult(done.changed, done.unreadable)
