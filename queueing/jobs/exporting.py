"""`manage.py tenant export`: submits a job of kind `tenant.export`, waits for it and reads its file."""

import zlib
from collections.abc import AsyncIterator
from itertools import groupby

import msgspec

from queueing.jobs import files, waiting
from queueing.jobs.builtin.tenant_export import NAME, TenantExport
from queueing.jobs.errors import JobUnfinished
from queueing.jobs.requests import of_service
from registry.tenants import export

KEPT = 3600  # seconds that the file is kept, in which the command reads it
READ = 256 * 1024  # bytes of text that are read at once


async def pages(tenant_id: int) -> AsyncIterator[tuple[str, list[str]]]:
    """Pages of (table, lines of JSON), as `export.export` yields them. Raises JobUnfinished if the job does not succeed."""
    wanted = msgspec.structs.replace(of_service(NAME, TenantExport(), tenant_id=tenant_id), result_ttl=KEPT)
    [job] = await waiting.finish_shown([wanted], label="exporting")
    file = await files.file_of(job)
    if file is None:
        raise JobUnfinished(job.error or f"the export was {job.status}")
    async for lines in _lines(files.chunks(file)):
        for table, found in groupby(map(export.untagged, lines), key=lambda one: one[0]):
            yield table, [row for _, row in found]


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[list[str]]:
    """The whole lines in each piece of a compressed text."""
    unzip, rest = zlib.decompressobj(wbits=31), b""
    async for chunk in chunks:
        while chunk:
            *whole, rest = (rest + unzip.decompress(chunk, READ)).split(b"\n")
            yield [line.decode() for line in whole]
            chunk = unzip.unconsumed_tail
    rest += unzip.flush()
    yield [line.decode() for line in rest.split(b"\n")[:-1]]
    if not unzip.eof:
        raise JobUnfinished("the file of the export is not whole")
