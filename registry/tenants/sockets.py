"""Authorization of websockets that follow the events of a tenant."""

from typing import Any

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest

from registry.edge.live_socket import LiveSocket
from registry.edge.viewer import person_of
from registry.errors import Forbidden
from registry.models import Membership, Tenant
from registry.tenants import access


async def tenant_authority(socket: LiveSocket, *, keyless: bool = True) -> int:
    """The tenant: by key, by session (from our own pages only), or the open tenant where `keyless`. Raises Unauthorized, Forbidden."""
    if authorization := socket.header(b"authorization"):
        principal = await access.authenticate(authorization)
        principal.require("read")
        return principal.tenant_id
    _refuse_foreign_pages(socket)
    user = await person_of(socket.scope["session"])
    from_page = user is not None and socket.header(b"origin")  # a browser always says which site its page is from
    if from_page and (tenant_id := await _tenant_of(user, socket.query("tenant"))) is not None:
        return tenant_id
    return (await access.authenticate(None, keyless=keyless)).tenant_id


async def _tenant_of(user: Any, slug: str) -> int | None:
    """The tenant of this slug if the person may see it; without a slug the first one of which they are a member."""
    mine = Membership.async_objects.filter(user_id=user.pk, tenant__status="active").order_by("id")
    if slug:
        mine = mine.filter(tenant__slug=slug)
    tenant_id = await mine.values_list("tenant_id", flat=True).afirst()
    if tenant_id is None and slug and user.is_superuser:  # as on the pages
        tenant_id = await Tenant.async_objects.filter(slug=slug, status="active").values_list("id", flat=True).afirst()
    return tenant_id


def _refuse_foreign_pages(socket: LiveSocket) -> None:
    """Refuse pages of other sites, with the visitor's cookies or without, as for HTTP. Raises Forbidden."""
    request = HttpRequest()
    request.META = {"HTTP_HOST": socket.header(b"host"), "HTTP_ORIGIN": socket.header(b"origin")}
    try:
        access.refuse_foreign_pages(request)
    except DisallowedHost:
        raise Forbidden from None
