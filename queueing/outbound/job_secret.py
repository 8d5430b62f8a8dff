"""A tenant's job secret, which signs the calls of its `http` jobs and the callbacks of all its jobs. Callers write the audit entry."""

from pathlib import Path
from typing import Any, NamedTuple

from django_async_backend.db.transaction import async_atomic

from queueing.models import JobSecret
from queueing.outbound.signing import Secrets
from registry.data import clock, database
from registry.data.arrays import Bigints, Blobs

SQL = database.statements(Path(__file__).parent / "sql" / "outbound.sql")


def place(tenant_id: int) -> str:
    """The context that the secret is encrypted with."""
    return f"job secret of tenant {tenant_id}"


def unsealed(tenant_id: int, sealed: bytes | memoryview) -> Secrets:
    """Raises Sealed (500) if no key can decrypt them."""
    return Secrets.unsealed(sealed, place=place(tenant_id))


class Signing(NamedTuple):
    """What a call of a tenant's job is sent with."""

    mode: str  # the tenant's
    secrets: Secrets


async def signing(tenant_id: int) -> Signing:
    """Read by each call, so that a rotation takes effect at once. Raises Sealed (500)."""
    [(mode, sealed)] = await database.fetch(SQL["signing_of"], {"tenant": tenant_id})
    return Signing(mode, await of(tenant_id) if sealed is None else unsealed(tenant_id, sealed))


async def of(tenant_id: int) -> Secrets:
    """The tenant's job secret; the first call makes it. Raises Sealed (500)."""
    sealed = await _stored(tenant_id)
    if sealed is None:
        await database.fetch(SQL["make_job_secrets"], fresh([tenant_id]))
        sealed = await _stored(tenant_id)
    assert sealed is not None  # made by us, or by another process at the same time
    return unsealed(tenant_id, sealed)


async def _stored(tenant_id: int) -> bytes | None:
    rows = await database.fetch(SQL["job_secret"], {"tenant": tenant_id})
    return rows[0][0] if rows else None


def fresh(tenant_ids: list[int]) -> dict[str, Any]:
    """Parameters of the statement `make_job_secrets`, which keeps the secrets of tenants that have one."""
    sealed = [Secrets.fresh().sealed(place=place(tenant_id)) for tenant_id in tenant_ids]
    return {"tenant": Bigints(tenant_ids), "sealed": Blobs(sealed)}


async def rotate(*, tenant_id: int) -> str:
    """Replace the secret; returns the new one. The former one signs too for 24 hours. Raises Sealed (500)."""
    await of(tenant_id)
    async with async_atomic():
        mine = JobSecret.async_objects.filter(tenant_id=tenant_id)
        found = await mine.select_for_update().aget()
        secrets = unsealed(tenant_id, found.sealed).rotated(clock.now())
        await mine.aupdate(sealed=secrets.sealed(place=place(tenant_id)), changed_at=clock.now())
    return secrets.newest
