"""Issue, revoke and rotate API keys of a tenant, each with an audit entry in the same transaction. access.py creates the rows."""

from datetime import datetime, timedelta

from django.db.models import Case, Q, When
from django.db.models.functions import Now
from django_async_backend.db.transaction import async_atomic

from registry.data import clock
from registry.data.loop import sync_twin
from registry.models import ApiKey, Tenant
from registry.tenants import access, audit

SHOWN = 200  # keys of a list
OVER = Q(revoked_at__isnull=False) | Q(expires_at__lte=Now())


async def issue(
    *,
    tenant: Tenant,
    actor: str,
    scopes: list[str],
    name: str = "",
    expires_at: datetime | None = None,
    rate_limit: str = "",
    prefix: str = "",
    reason: str = "",
) -> tuple[ApiKey, str]:
    """Issue a key; also returns its plain text, which is never stored. `prefix`: of a form, so that the form makes one key however
    often it is sent. Raises IntegrityError if there is a key with this prefix."""
    async with async_atomic():
        key, plain = await access.issue_key(
            tenant=tenant, scopes=scopes, name=name, expires_at=expires_at, rate_limit=rate_limit, prefix=prefix
        )
        await _record("apikey.issue", key, actor, reason, scopes=scopes)
    return key, plain


async def revoke(*, tenant_id: int, prefix: str, actor: str, reason: str = "") -> bool:
    """Revoke a key. False when it was revoked before or does not exist."""
    async with async_atomic():
        moved = await access.revoke_key(tenant_id=tenant_id, prefix=prefix)
        if moved:
            await _record("apikey.revoke", await ApiKey.async_objects.aget(prefix=prefix), actor, reason)
    return moved


async def rotate(
    *, tenant_id: int, prefix: str, actor: str, grace: timedelta = timedelta(0), successor: str = "", reason: str = ""
) -> tuple[ApiKey, str] | None:
    """Issue a successor with the same rights; the old key expires after `grace`. None when the old key is not usable.
    `successor`: the prefix of the new key, as of `issue`."""
    async with async_atomic():
        mine = ApiKey.async_objects.usable().filter(tenant_id=tenant_id, prefix=prefix)
        old = await mine.select_for_update().afirst()
        if old is None:
            return None
        tenant = await Tenant.async_objects.aget(pk=tenant_id)
        new, plain = await access.issue_key(
            tenant=tenant,
            scopes=old.scopes,
            name=old.name,
            expires_at=old.expires_at,
            rate_limit=old.rate_limit,
            prefix=successor,
        )
        if grace:
            end = clock.now() + grace
            sooner = Q(expires_at=None) | Q(expires_at__gt=end)
            await ApiKey.async_objects.filter(sooner, tenant_id=tenant_id, prefix=prefix).aupdate(expires_at=end)
        else:
            await access.revoke_key(tenant_id=tenant_id, prefix=prefix)
        await _record("apikey.rotate", old, actor, reason, successor=new.prefix, grace=f"{grace.total_seconds():.0f} s")
    return new, plain


async def _record(action: str, key: ApiKey, actor: str, reason: str, **detail: object) -> None:
    target = f"API key {key.prefix}"
    await audit.record(actor=actor, action=action, target=target, tenant_id=key.tenant_id, reason=reason, detail=detail)


issue_sync = sync_twin(issue)


async def of_tenant(tenant_id: int) -> list[ApiKey]:
    """The keys that can be used, the newest first; then the others."""
    mine = ApiKey.async_objects.filter(tenant_id=tenant_id)
    over = Case(When(OVER, then=1), default=0)
    return [key async for key in mine.annotate(over=over).order_by("over", "-created_at", "-pk")[:SHOWN]]
