"""Source of attention: API keys that expire soon."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from registry.data import clock
from registry.models import ApiKey
from registry.operators.attention import Item, Severity, source

SOON = timedelta(days=14)  # before a key expires
URGENT = timedelta(days=2)
LISTED = 10  # keys with a line of their own
PAGE = "/developers"


@source("keys.expiring")
async def expiring(tenant_ids: Sequence[int] | None) -> list[Item]:
    now = clock.now()
    keys = ApiKey.async_objects.usable().filter(expires_at__lte=now + SOON)
    if tenant_ids is not None:
        keys = keys.filter(tenant_id__in=list(tenant_ids))
    return [_item(key, now) async for key in keys.order_by("expires_at")[:LISTED]]


def _item(key: ApiKey, now: datetime) -> Item:
    assert key.expires_at
    left = key.expires_at - now
    named = f" “{key.name}”" if key.name else ""
    return Item(
        severity=Severity.WARNING if left < URGENT else Severity.NOTICE,
        sentence=f"API key {key.prefix}{named} expires on {key.expires_at:%Y-%m-%d %H:%M} UTC. Its requests are refused then.",
        action="Rotate the key",
        page=PAGE,
        admin=f"/admin/registry/apikey/?q={key.prefix}",
    )
