"""Members of a tenant: changes of a role, and removal. A tenant keeps at least one owner who can sign in.

Callers open the transaction and write the audit entry.
"""

from registry.errors import Problem
from registry.models import Membership


class LastOwner(Problem):
    """A tenant needs an owner who can sign in. Make another member an owner first."""

    status = 409


async def of_tenant(tenant_id: int) -> list[Membership]:
    """The members by name, with their accounts."""
    mine = Membership.async_objects.filter(tenant_id=tenant_id).select_related("user")
    return [member async for member in mine.order_by("user__username")]


async def change_role(*, tenant_id: int, id: int, before: str, role: str) -> bool:
    """Change a member's role. False if the member is gone or has another role than `before`. Raises LastOwner (409)."""
    if role != Membership.Role.OWNER:
        await _keep_an_owner(tenant_id, without=id)
    mine = Membership.async_objects.filter(tenant_id=tenant_id, pk=id, role=before)
    return bool(await mine.aupdate(role=role))


async def remove(*, tenant_id: int, id: int, before: str) -> bool:
    """Remove a member; the account stays. Returns and raises as `change_role`."""
    await _keep_an_owner(tenant_id, without=id)
    gone, _ = await Membership.async_objects.filter(tenant_id=tenant_id, pk=id, role=before).adelete()
    return bool(gone)


async def _keep_an_owner(tenant_id: int, *, without: int) -> None:
    """Lock the owners, so that two of them cannot remove each other."""
    owners = Membership.async_objects.filter(tenant_id=tenant_id, role=Membership.Role.OWNER).order_by("pk")
    found = [(member.pk, member.user_id) async for member in owners.select_for_update()]
    if without not in {pk for pk, _ in found}:
        return
    others = [pk for pk, _ in found if pk != without]
    if not await Membership.async_objects.filter(pk__in=others, user__is_active=True).aexists():
        raise LastOwner
