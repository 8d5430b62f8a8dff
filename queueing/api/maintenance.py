"""Maintenance mode: a tenant's pushes or pops are paused (queue contract section 1.5)."""

from typing import Any

import msgspec
from django.http import HttpRequest, HttpResponse

from queueing.api.edge import answer, endpoint, read
from queueing.broker import buffer, maintenance
from queueing.broker.errors import BadRequest
from registry.tenants.access import Principal


class MaintenanceBody(msgspec.Struct):
    """The new state of a maintenance mode."""

    enabled: bool


_body = msgspec.json.Decoder(MaintenanceBody)


def _enabled(request: HttpRequest) -> bool:
    try:
        return read(request, _body).enabled
    except BadRequest as error:
        if error.detail.startswith(("Invalid JSON", "Empty")):
            raise
        raise BadRequest("enabled (boolean) is required") from None


async def _answer(tenant_id: int, modes: maintenance.Modes) -> HttpResponse:
    body: dict[str, Any] = {"maintenanceMode": modes.push, "popMaintenanceMode": modes.pop}
    return answer(body | await buffer.state(tenant_id))


@endpoint("admin")
async def get(_request: HttpRequest, principal: Principal) -> HttpResponse:
    return await _answer(principal.tenant_id, await maintenance.modes(principal.tenant_id, fresh=True))


@endpoint("admin")
async def set_push(request: HttpRequest, principal: Principal) -> HttpResponse:
    """While it is on, pushes are answered `buffered`; afterwards they are stored in their order."""
    return await _answer(principal.tenant_id, await maintenance.set(principal.tenant_id, push=_enabled(request)))


@endpoint("admin")
async def set_pop(request: HttpRequest, principal: Principal) -> HttpResponse:
    """While it is on, pops are answered 204."""
    return await _answer(principal.tenant_id, await maintenance.set(principal.tenant_id, pop=_enabled(request)))
