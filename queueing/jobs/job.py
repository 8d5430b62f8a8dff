"""A job before it is stored: its content, the fingerprint of that content, and the receipt once it is durable."""

import hashlib
from datetime import datetime
from uuid import UUID

import msgspec

from registry.telemetry.context import REQUEST

type Key = tuple[int, UUID]  # tenant, job id


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A requested job, checked. `input` is JSON without the secret fields, which are in `sealed`."""

    tenant_id: int
    id: UUID
    kind: str
    input: bytes
    content: bytes  # the whole input, for the fingerprint only
    sealed: bytes = b""
    priority: int = 0
    run_at: datetime | None = None  # None: now
    unique_key: str | None = None
    max_attempts: int
    timeout: float  # seconds
    result_ttl: int  # seconds
    callback_url: str = ""
    schedule_id: int | None = None
    due_at: datetime | None = None
    request_id: str = msgspec.field(default_factory=REQUEST.get)  # for the log

    @property
    def key(self) -> Key:
        return self.tenant_id, self.id


class JobReceipt(msgspec.Struct, frozen=True):
    """Confirms that a job is durable. `id` is another job's where one with the same unique key is at work already."""

    id: UUID
    created_at: datetime
    replayed: bool = False
    at_work: bool = False


_content = msgspec.msgpack.Encoder(order="deterministic")
_input = msgspec.json.Encoder(order="deterministic")  # unlike MessagePack, JSON has whole numbers of more than 64 bits


def fingerprint(job: NewJob) -> bytes:
    """A hash of the request, 16 bytes: the same under the same id is a replay. It is stored, so it must never change."""
    content = (
        job.kind,
        _input.encode(msgspec.json.decode(job.content)),
        job.priority,
        job.run_at,
        job.unique_key,
        job.max_attempts,
        job.timeout,
        job.result_ttl,
        job.callback_url,
    )
    return hashlib.blake2b(_content.encode(content), digest_size=16).digest()
