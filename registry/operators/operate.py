"""Guarded actions of the console on what belongs to a tenant: revoke and rotate API keys, change and remove members."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

from django.contrib import messages
from django.db import IntegrityError
from django.http import HttpResponse

from registry.edge.pages import PageRequest, console_address
from registry.edge.viewer import Visitor
from registry.models import ApiKey, Membership
from registry.operators.confirm import Action, Confirmed, asked, confirm, recorded
from registry.operators.decide import Done
from registry.tenants import keys, members

GRACES = {  # value of the field → its label, and how long the old key still works
    "day": ("24 hours", timedelta(days=1)),
    "hour": ("1 hour", timedelta(hours=1)),
    "week": ("7 days", timedelta(days=7)),
    "none": ("Not at all: it stops within a second", timedelta(0)),
}
MADE_ALREADY = (
    "This form has made a key already. Its secret was shown then and cannot be shown again: revoke that key and make "
    "another one, unless you have copied it."
)

# -- API keys ----------------------------------------------------------------------------------------------------


async def revoke_key(request: PageRequest, visitor: Visitor, key: ApiKey) -> HttpResponse:
    async def perform(confirmed: Confirmed) -> Done:
        done = await keys.revoke(
            tenant_id=visitor.tenant.pk, prefix=key.prefix, actor=confirmed.actor, reason=confirmed.reason
        )
        return Done(rows=int(done), lost=int(not done))

    action = Action(
        name="apikey.revoke",
        label="Revoke the key",
        target=_named(key),
        count=int(key.revoked_at is None),
        noun="API key",
        warning="Every request with this key is refused within a second. This cannot be undone.",
        perform=perform,
        back=console_address("keys", tenant=visitor.tenant.slug),
        fields=[("do", "revoke"), ("key", key.prefix)],
        severe=True,
    )
    return await confirm(request, visitor, action)


async def rotate_key(
    request: PageRequest,
    visitor: Visitor,
    key: ApiKey,
    *,
    successor: str,
    usable: bool,
    shown: Callable[[ApiKey, str], Awaitable[HttpResponse]],
) -> HttpResponse:
    """Replace a key. `successor`: the prefix of the new one; `shown` answers with its plain text, this once."""
    made: list[tuple[ApiKey, str]] = []
    grace = asked(request).get("grace", "day")

    async def perform(confirmed: Confirmed) -> Done:
        try:
            rotated = await keys.rotate(
                tenant_id=visitor.tenant.pk,
                prefix=key.prefix,
                actor=confirmed.actor,
                grace=GRACES[grace][1],
                successor=successor,
                reason=confirmed.reason,
            )
        except IntegrityError:
            return Done(rows=0, warnings=[MADE_ALREADY])
        made.extend([rotated] if rotated else [])
        return Done(rows=len(made), lost=1 - len(made))

    async def then() -> HttpResponse | None:
        return await shown(*made[0]) if made else None

    action = Action(
        name="apikey.rotate",
        label="Rotate the key",
        target=_named(key),
        count=int(usable),
        noun="API key",
        warning="A new key with the same scopes, expiry and rate limit is made. It is shown once.",
        perform=perform,
        back=console_address("keys", tenant=visitor.tenant.slug),
        fields=[("do", "rotate"), ("key", key.prefix), ("successor", successor)],
        extra="registry/developers/_grace.html",
        entered={"grace": grace, "graces": [(value, label) for value, (label, _) in GRACES.items()]},  # type: ignore[dict-item]
        wrong={} if grace in GRACES else {"grace": "Choose how long the old key still works."},
    )
    return await confirm(request, visitor, action, then=then)


def _named(key: ApiKey) -> str:
    return f"{key.name} (rk_{key.prefix}_…)" if key.name else f"rk_{key.prefix}_…"


def made_already(request: PageRequest) -> None:
    messages.warning(request, MADE_ALREADY)


# -- Members -----------------------------------------------------------------------------------------------------


async def change_role(request: PageRequest, visitor: Visitor, member: Membership, role: str) -> HttpResponse:
    async def change() -> Done:
        moved = await members.change_role(tenant_id=visitor.tenant.pk, id=member.pk, before=member.role, role=role)
        return Done(rows=int(moved), lost=int(not moved))

    action = Action(
        name="membership.change",
        label=f"Make {_article(role)} {role}",
        target=member.user.get_username(),
        count=int(member.role != role),
        noun="member",
        warning=RIGHTS[role],
        perform=recorded(change, tenant_id=visitor.tenant.pk, detail={"role": [member.role, role]}),
        back=_after(visitor, member, still_owner=role == Membership.Role.OWNER),
        fields=[("do", "role"), ("member", str(member.pk)), ("role", role)],
    )
    return await confirm(request, visitor, action)


async def remove_member(request: PageRequest, visitor: Visitor, member: Membership) -> HttpResponse:
    async def change() -> Done:
        gone = await members.remove(tenant_id=visitor.tenant.pk, id=member.pk, before=member.role)
        return Done(rows=int(gone), lost=int(not gone))

    action = Action(
        name="membership.remove",
        label="Remove from the team",
        target=member.user.get_username(),
        count=1,
        noun="member",
        warning="They no longer see anything of this tenant, within seconds on open pages. Their account and their audit entries stay.",
        perform=recorded(change, tenant_id=visitor.tenant.pk, detail={"role": member.role}),
        back=_after(visitor, member, still_owner=False),
        fields=[("do", "remove"), ("member", str(member.pk))],
        severe=True,
    )
    return await confirm(request, visitor, action)


RIGHTS = {
    "owner": "Owners may do everything: also manage API keys, members, the plan and settings.",
    "operator": "Operators may change what happens: refund, retry, replay, switch processors and webhooks. They revoke API keys, but cannot make them, nor manage members or settings.",
    "viewer": "Viewers may look at everything but the audit log, and change nothing.",
}


def _article(role: str) -> str:
    return "an" if role[0] in "aeiou" else "a"


def _after(visitor: Visitor, member: Membership, *, still_owner: bool) -> str:
    """The page to go to: the home page for people who have changed their own membership."""
    own = member.user.get_username() == visitor.person and not still_owner
    return "/" if own else console_address("team", tenant=visitor.tenant.slug)
