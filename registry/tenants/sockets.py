"""Authorization of websockets that follow the events of a tenant."""

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest

from registry.edge.live_socket import LiveSocket
from registry.edge.viewer import person_of
from registry.errors import Forbidden
from registry.models import Membership
from registry.tenants import access


async def tenant_authority(socket: LiveSocket, *, keyless: bool = True) -> int:
    """The tenant: by key, by session (from our own pages only), or the open tenant where `keyless`. Raises Unauthorized, Forbidden."""
    if authorization := socket.header(b"authorization"):
        principal = await access.authenticate(authorization)
        principal.require("read")
        return principal.tenant_id
    _refuse_foreign_pages(socket)
    user = await person_of(socket.scope["session"])
    if user is not None and socket.header(b"origin"):  # a browser always says which site its page is from
        mine = Membership.async_objects.filter(user_id=user.pk, tenant__status="active")
        if slug := socket.query("tenant"):
            mine = mine.filter(tenant__slug=slug)
        if (tenant_id := await mine.order_by("id").values_list("tenant_id", flat=True).afirst()) is not None:
            return tenant_id
    return (await access.authenticate(None, keyless=keyless)).tenant_id


def _refuse_foreign_pages(socket: LiveSocket) -> None:
    """Refuse pages of other sites, with the visitor's cookies or without, as for HTTP. Raises Forbidden."""
    request = HttpRequest()
    request.META = {"HTTP_HOST": socket.header(b"host"), "HTTP_ORIGIN": socket.header(b"origin")}
    try:
        access.refuse_foreign_pages(request)
    except DisallowedHost:
        raise Forbidden from None
