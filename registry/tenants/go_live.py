"""What stands between a tenant's sandbox and real money. What it takes, an app above knows, and registers its gate here."""

from collections.abc import Awaitable
from typing import Protocol

from registry.models import Tenant


class Gate(Protocol):
    def __call__(self, *, tenant: Tenant, actor: str, reason: str = "") -> Awaitable[bool]:
        """Let the tenant go live; False when it is already. Raises a Problem with everything that is missing."""


GATES: list[Gate] = []


async def go_live(*, tenant: Tenant, actor: str, reason: str = "") -> bool:
    """Through every gate, of which the last one does it."""
    return all([await gate(tenant=tenant, actor=actor, reason=reason) for gate in GATES])
