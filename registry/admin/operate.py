"""Guarded actions on tenants, API keys and memberships."""

from psycopg import AsyncConnection

from registry.models import ApiKey, Membership, Tenant
from registry.operators.confirm import Confirmed
from registry.operators.decide import Done, Moved, decide, each
from registry.operators.rows import guarded
from registry.tenants import keys, members

# -- Tenants -----------------------------------------------------------------------------------------------------

SUSPEND = guarded(
    "tenant.suspend",
    label="Suspend: keys stop working",
    warning="Their keys are refused within a second. Payments accepted before are still settled.",
    expects={"status": Tenant.Status.ACTIVE},
    sets={"status": Tenant.Status.SUSPENDED},
)
RESUME = guarded(
    "tenant.resume",
    label="Resume: keys work again",
    warning="Requests with the keys of these tenants are accepted again.",
    expects={"status": Tenant.Status.SUSPENDED},
    sets={"status": Tenant.Status.ACTIVE},
)

# -- Keys --------------------------------------------------------------------------------------------------------


async def _revoke(confirmed: Confirmed) -> Done:
    async def one(key: ApiKey) -> bool:
        return await keys.revoke(
            tenant_id=key.tenant_id, prefix=key.prefix, actor=confirmed.actor, reason=confirmed.reason
        )

    return await each(confirmed.action.rows, one)


REVOKE_KEYS = guarded(
    "apikey.revoke",
    label="Revoke",
    warning="Every request with one of these keys is refused within a second. This cannot be undone.",
    expects={"revoked_at": None},
    perform=_revoke,
)

# -- Memberships -------------------------------------------------------------------------------------------------


async def _remove(confirmed: Confirmed) -> Done:
    rows = confirmed.action.rows

    async def move(_: AsyncConnection) -> list[Moved]:
        removed = [row for row in rows if await _removed(row)]
        return [Moved(target=str(row), tenant_id=row.tenant_id) for row in removed]

    moved = await decide(action=confirmed.action.name, actor=confirmed.actor, reason=confirmed.reason, move=move)
    return Done(rows=len(moved), lost=len(rows) - len(moved))


async def _removed(membership: Membership) -> bool:
    """Whether it was still there, with the role that the operator saw. Raises LastOwner (409)."""
    return await members.remove(tenant_id=membership.tenant_id, id=membership.pk, before=membership.role)


REMOVE_MEMBERS = guarded(
    "membership.remove",
    label="Remove from the tenant",
    warning="These people no longer see anything of the tenant. Their accounts stay.",
    expects={},
    perform=_remove,
)
