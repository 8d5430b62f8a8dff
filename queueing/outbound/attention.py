"""Sources of attention: webhook deliveries that failed for good, endpoints that fail, and those that were disabled."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from queueing.models import WebhookDelivery, WebhookEndpoint
from registry.data import database
from registry.operators.attention import COUNTED, Item, Severity, counted, source
from registry.operators.cells import address_of_list

SQL = database.statements(Path(__file__).parent / "sql" / "attention_outbound.sql")

FAILING_FOR = 15 * 60  # seconds without an accepted delivery; a receiver that is restarted or deployed takes less


@source("deliveries.failed")
async def failed(tenant_ids: Sequence[int] | None) -> list[Item]:
    count, since, endpoints, slug = await failed_deliveries(tenant_ids)
    if not count:
        return []
    said = f"{counted(count, 'webhook delivery', 'webhook deliveries')} to {counted(endpoints, 'endpoint')} failed in every attempt: "
    return [
        Item(
            severity=Severity.NOTICE,
            sentence=f"{said}the receivers do not know of these events.",
            count=count,
            since=since,
            action="Deliver again",
            page="/webhooks",
            admin=address_of_list(WebhookDelivery, tenant=slug, state="dead"),
        )
    ]


@source("endpoints.disabled")
async def disabled(tenant_ids: Sequence[int] | None) -> list[Item]:
    count, since, url = await disabled_endpoints(tenant_ids)
    if not count:
        return []
    where = f" ({urlsplit(url).netloc})" if count == 1 else ""
    is_off = "is disabled: its" if count == 1 else "are disabled: their"
    return [
        Item(
            severity=Severity.WARNING,
            sentence=f"{counted(count, 'webhook endpoint')}{where} {is_off} events wait until it is switched on again.",
            count=count,
            since=since,
            action="Switch on",
            page="/webhooks",
            admin=address_of_list(WebhookEndpoint, enabled__exact=0),
        )
    ]


@source("endpoints.failing")
async def failing(tenant_ids: Sequence[int] | None) -> list[Item]:
    """Endpoints whose deliveries are still tried again: the receiver can be mended before one of them has failed for good."""
    asked = {"tenants": tenant_ids, "limit": COUNTED, "patience": FAILING_FOR}
    [(count, since, url, slug)] = await database.fetch(SQL["failing"], asked, prepare=False)
    if not count:
        return []
    where = f" ({urlsplit(url).netloc})" if count == 1 else ""
    verb = "accepts" if count == 1 else "accept"
    return [
        Item(
            severity=Severity.WARNING,
            sentence=f"{counted(count, 'webhook endpoint')}{where} {verb} nothing: deliveries are tried again for three days.",
            count=count,
            since=since,
            action="See the endpoint" if count == 1 else "See the endpoints",
            page="/webhooks",
            admin=address_of_list(
                WebhookEndpoint, enabled__exact=1, failing_since__isempty=0, **({"tenant": slug} if count == 1 else {})
            ),
        )
    ]


async def failed_deliveries(tenant_ids: Sequence[int] | None) -> tuple[int, datetime | None, int, str | None]:
    """How many, since when, to how many endpoints, and the tenant of the oldest."""
    [row] = await database.fetch(SQL["failed"], {"tenants": tenant_ids, "limit": COUNTED}, prepare=False)
    return row


async def disabled_endpoints(tenant_ids: Sequence[int] | None) -> tuple[int, datetime | None, str]:
    """How many were switched off for a reason, since when, and the address of one."""
    [row] = await database.fetch(SQL["disabled"], {"tenants": tenant_ids, "limit": COUNTED}, prepare=False)
    return row
