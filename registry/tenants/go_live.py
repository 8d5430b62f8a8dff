"""Switch of a tenant from sandbox to live mode. Upper apps register the checks ("gates") that a tenant must pass."""

from collections.abc import Awaitable
from typing import Protocol

from registry.models import Tenant


class Gate(Protocol):
    def __call__(self, *, tenant: Tenant, actor: str, reason: str = "") -> Awaitable[bool]:
        """Let the tenant go live; False when it is already. Raises a Problem with everything that is missing."""


GATES: list[Gate] = []


async def go_live(*, tenant: Tenant, actor: str, reason: str = "") -> bool:
    """Pass every gate; the last one makes the switch."""
    return all([await gate(tenant=tenant, actor=actor, reason=reason) for gate in GATES])
