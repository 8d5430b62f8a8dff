"""The visitor of a page: a member of a tenant or, on the pages of payments, a guest of the open tenant."""

from dataclasses import dataclass, field
from typing import Any

from channels.db import database_sync_to_async
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model, load_backend
from django.http import Http404, HttpRequest
from django.utils.crypto import constant_time_compare

from registry.models import Membership, Tenant

SUPERUSER = "superuser"  # a role that no membership gives
MAY_ACT = frozenset({Membership.Role.OWNER, Membership.Role.OPERATOR, SUPERUSER})
MAY_OWN = frozenset({Membership.Role.OWNER, SUPERUSER})
GUEST = "guest of the open tenant"  # in the audit trail
CHOICES = 50  # tenants in a superuser's menu, beside their own; others by `?tenant=`


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """A person, signed in or not, on the pages of one tenant."""

    tenant: Tenant
    person: str = ""  # user name; "" if not signed in
    role: str = ""  # "" for a guest of the open tenant
    staff: bool = False
    choices: list[Tenant] = field(default_factory=list)  # tenants that this person may look at

    @property
    def actor(self) -> str:
        """The visitor's name in the audit trail."""
        return self.person or GUEST

    @property
    def may_play(self) -> bool:
        """Whether the visitor may use test payments and the sandbox's switches."""
        return self.tenant.mode == Tenant.Mode.SANDBOX and (not self.role or self.role in MAY_ACT)

    @property
    def may_act(self) -> bool:
        """Whether the visitor may change state."""
        return self.role in MAY_ACT

    @property
    def may_own(self) -> bool:
        """Whether the visitor may change what belongs to the tenant itself: keys, members, plan, settings."""
        return self.role in MAY_OWN


async def visitor_of(request: HttpRequest, *, guests: bool = False, strict: bool = True) -> Visitor | None:
    """The visitor at the tenant that `?tenant=` names, else at their first one; None for a visitor without a tenant.

    `guests`: visitors without a role may see the open tenant, as keyless calls may on `/payments*` (contract section 7).
    Raises Http404 for a tenant of others, the same as for one that does not exist; if not `strict`, their first one is taken.
    """
    user = await request.auser()
    roles = await _roles(user.pk) if user.is_authenticated else {}
    wanted = request.GET.get("tenant")
    if guests and (guest := await _open_tenant()) and guest not in roles and (not roles or wanted == guest.slug):
        roles[guest] = ""
    if user.is_authenticated and user.is_superuser:
        opened = await _open_tenant()  # first on every page, as on those that guests see
        roles = dict.fromkeys([*roles, *([opened] if opened else []), *await _any_tenants(wanted)], SUPERUSER)
    tenant = next((t for t in roles if not wanted or t.slug == wanted), None)
    if tenant is None:
        if strict and wanted and (roles or user.is_authenticated):
            raise Http404
        tenant = None if strict else next(iter(roles), None)
    if tenant is None:
        return None
    return Visitor(
        tenant=tenant,
        person=user.get_username(),
        role=roles[tenant],
        staff=user.is_authenticated and user.is_staff,
        choices=list(roles),
    )


@database_sync_to_async
def person_of(session: Any) -> Any:
    """The user of a websocket's session, or None.

    channels.auth.get_user ignores SECRET_KEY_FALLBACKS, and ends a session that was signed with one of them.
    """
    number, path, stated = (session.get(name) for name in (SESSION_KEY, BACKEND_SESSION_KEY, HASH_SESSION_KEY))
    if not number or not stated or path not in settings.AUTHENTICATION_BACKENDS:
        return None
    user = load_backend(path).get_user(get_user_model()._meta.pk.to_python(number))
    hashes = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()] if user else []
    return user if any(constant_time_compare(stated, one) for one in hashes) else None


async def _roles(user_id: int) -> dict[Tenant, str]:
    mine = Membership.async_objects.filter(user_id=user_id, tenant__status=Tenant.Status.ACTIVE)
    return {m.tenant: m.role async for m in mine.select_related("tenant").order_by("tenant__slug")}


async def _any_tenants(wanted: str | None) -> list[Tenant]:
    active = Tenant.async_objects.filter(status=Tenant.Status.ACTIVE).order_by("slug")
    found = [tenant async for tenant in active[:CHOICES]]
    return found + [tenant async for tenant in active.filter(slug=wanted)] if wanted else found


async def _open_tenant() -> Tenant | None:
    if not settings.REGISTRY_OPEN_TENANT:
        return None
    open_one = Tenant.async_objects.filter(slug=settings.REGISTRY_OPEN_TENANT, open=True, status=Tenant.Status.ACTIVE)
    return await open_one.afirst()
