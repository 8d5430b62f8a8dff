"""Job kind `tenant.export`: a file with all rows of a tenant, as `manage.py tenant export` writes it."""

import asyncio

import msgspec

from queueing.jobs.kinds import Context, kind
from registry.tenants import audit, export

NAME = "tenant.export"
TIMEOUT = 6 * 3600.0  # seconds
LARGE = 64 * 1024  # characters of a line that takes long to compress

export.LEFT_OUT["queueing.JobFileChunk"] = "files that jobs wrote: an export would contain all exports before it"


class TenantExport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The input."""

    gzip: bool = True


@kind(NAME, input=TenantExport, runs="loop", scope="admin", timeout=TIMEOUT, tenant_concurrency=1)
async def write(context: Context, asked: TenantExport) -> dict[str, int]:
    """Write all data of the tenant into a file, as lines of JSON in one snapshot. Encrypted messages stay encrypted."""
    await audit.record(actor=f"job {context.job_id}", action=NAME, target="tenant", tenant_id=context.tenant_id)
    name = f"tenant.ndjson{'.gz' if asked.gzip else ''}"
    content_type = "application/gzip" if asked.gzip else "application/x-ndjson"
    total, tables, rows = len(list(export.sources())), list[str](), 0
    async with context.file(name, content_type, gzip=asked.gzip) as file:
        async for table, lines in export.export(context.tenant_id):
            for line in export.tagged(table, lines):
                await file.write(line.encode())
                if len(line) > LARGE:
                    await asyncio.sleep(0)
            rows += len(lines)
            tables += [table] if table not in tables else []
            context.progress(len(tables), total, f"{rows:,} rows written")
    return {"rows": rows, "tables": len(tables), "size": file.size}
