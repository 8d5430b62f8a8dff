"""Files that jobs write: kept in PostgreSQL in chunks, and sent to whoever has a signed link, until they expire."""

import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from django.conf import settings
from django.core import signing

from queueing.jobs.errors import JobLinkInvalid, JobResultExpired
from queueing.jobs.kinds import LONGEST_TIMEOUT, JobCanceled
from queueing.models import Job, JobFile
from registry.data import clock, database
from registry.data.chores import chore
from registry.edge.api import iso

SQL = database.statements(Path(__file__).parent / "sql" / "files.sql")

CHUNK = 256 * 1024  # bytes of a row
LINK_VALID = 24 * 3600  # seconds that a signed link works; the file may expire before
REMOVED_AT_ONCE = 200  # chunks per statement
SALT = "registry.job file"


class JobFileWriter:
    """Writes the file of an attempt: `async with JobFileWriter(…) as file: await file.write(data)`. Data is compressed by gzip if asked."""

    def __init__(
        self, *, tenant_id: int, job_id: int, attempt: int, name: str, content_type: str, gzip: bool, seconds: int
    ) -> None:
        self.name, self.size = name, 0
        self._key = {"tenant": tenant_id, "job": job_id, "attempt": attempt}
        self._content_type, self._seconds = content_type, seconds
        self._gzip = zlib.compressobj(wbits=31) if gzip else None
        self._pending, self._number = bytearray(), 0

    async def __aenter__(self) -> Self:
        of_file = {"name": self.name, "content_type": self._content_type, "seconds": LONGEST_TIMEOUT + self._seconds}
        await database.fetch(SQL["begin"], {**self._key, **of_file})
        return self

    async def write(self, data: bytes) -> None:
        """Raises JobCanceled if a later attempt writes the file now."""
        self._pending += self._gzip.compress(data) if self._gzip else data
        while len(self._pending) >= CHUNK:
            await self._append(CHUNK)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            return
        if self._gzip:
            self._pending += self._gzip.flush()
        if self._pending:
            await self._append(len(self._pending))
        if not await database.fetch(SQL["end"], {**self._key, "seconds": self._seconds}):
            raise JobCanceled

    async def _append(self, size: int) -> None:
        data = bytes(self._pending[:size])
        written = await database.fetch(
            SQL["append"], {**self._key, "number": self._number, "data": data}, repeatable=False
        )
        if not written:
            raise JobCanceled
        del self._pending[:size]
        self._number += 1
        self.size += len(data)


# -- Reading -------------------------------------------------------------------------------------------------


async def file_of(job: Job) -> JobFile | None:
    """The file of a job that has succeeded, unless it has expired."""
    files = JobFile.async_objects.filter(tenant_id=job.tenant_id, job_id=job.pk, expires_at__gt=clock.now())
    return await files.afirst() if job.status == job.closed == "succeeded" else None


def shown(job: Job, file: JobFile) -> dict[str, Any]:
    """The file with a new signed link."""
    token = signing.dumps([job.tenant_id, str(job.uuid), int(clock.timestamp())], salt=SALT)
    return {
        "name": file.name,
        "contentType": file.content_type,
        "size": file.size,
        "url": f"{settings.REGISTRY_URL}/jobs/{job.uuid}/file?token={token}",
        "expiresAt": iso(file.expires_at),
    }


def tenant_of(uuid: UUID, token: str) -> int:
    """The tenant in a link's token. Raises JobResultExpired (410), JobLinkInvalid (403) for a token that is of another job or not ours."""
    try:
        # Not Django's max_age, which is by this host's clock.
        tenant_id, named, made = signing.loads(token, salt=SALT, fallback_keys=[*settings.SECRET_KEY_FALLBACKS])
    except signing.BadSignature:
        detail = "this link is not complete: its token is cut off or changed" if token else "this link lacks its token"
        raise JobLinkInvalid(f"{detail}; the job has the whole link") from None
    if clock.timestamp() - made > LINK_VALID:
        raise JobResultExpired("this link has expired; the job has a new one")
    if named != str(uuid):
        raise JobLinkInvalid("this link is another job's")
    return tenant_id


async def chunks(file: JobFile) -> AsyncIterator[bytes]:
    """The file's content; no connection is held between chunks."""
    sent = number = 0
    while sent < file.size:
        key = {"tenant": file.tenant_id, "job": file.job_id, "attempt": file.attempt, "number": number}
        [(data,)] = await database.fetch(SQL["chunk"], key)
        await database.release()
        sent, number = sent + len(data), number + 1
        yield bytes(data)


@chore("job files", every=600)
async def remove_expired() -> None:
    """Remove files that have expired, and what attempts left that were cut off."""
    while len(await database.fetch(SQL["delete_chunks"], {"limit": REMOVED_AT_ONCE})) == REMOVED_AT_ONCE:
        pass
    await database.fetch(SQL["delete_files"])
