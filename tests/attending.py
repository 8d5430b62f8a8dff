"""For tests of sources of attention: read one of them by name, without the page's time limit."""

from collections.abc import Sequence

from registry.operators import attention
from registry.operators.attention import Item


async def named(name: str, tenant_ids: Sequence[int] | None = None) -> list[Item]:
    """The items of this source, of these tenants or of all."""
    return list(await attention._sources[name](tenant_ids))
