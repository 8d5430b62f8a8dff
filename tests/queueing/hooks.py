"""Helpers for tests of outbound webhooks: endpoints, a drain that delivers, and times changed in the database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from payments.models import Payment
from queueing.models import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from queueing.outbound import endpoints, fanout
from queueing.outbound.work import DeliveryWork
from queueing.work.drain import Drain
from registry.data import database
from registry.http.ssrf import Outside
from registry.models import Tenant
from tests.conftest import eventually


async def endpoint(tenant: Tenant, url: str, *events: str, **options: Any) -> WebhookEndpoint:
    """A new endpoint of `tenant`; its secret is `found.secret`."""
    async with database.own_connection():
        found, secret = await endpoints.create(
            tenant_id=tenant.pk, mode=tenant.mode, actor="a test", url=url, events=list(events or ("*",)), **options
        )
    found.secret = secret  # type: ignore[attr-defined]
    return found


@asynccontextmanager
async def delivering(*, outside: Outside | None = None, **options: Any) -> AsyncIterator[Drain]:
    """A worker's drain of webhooks in this loop, as an RQ job runs it; stopped gently on leaving."""
    work = DeliveryWork(outside=outside)
    drain = Drain(work, **options)
    task = asyncio.create_task(drain.run(seconds=600))
    try:
        yield drain
    finally:
        drain.stop()
        await task
        await work.close()


async def fan_out(rounds: int = 1) -> None:
    """What is new is owed, without anybody delivering it."""
    for _ in range(rounds):
        await fanout.spread()


async def deliveries(of: WebhookEndpoint) -> list[WebhookDelivery]:
    """Those of an endpoint, oldest first."""
    async with database.own_connection():
        return [
            one
            async for one in WebhookDelivery.async_objects.filter(tenant_id=of.tenant_id, endpoint_id=of.pk).order_by(
                "id"
            )
        ]


async def tries(delivery: WebhookDelivery) -> list[WebhookAttempt]:
    async with database.own_connection():
        found = WebhookAttempt.async_objects.filter(tenant_id=delivery.tenant_id, delivery_id=delivery.pk)
        return [one async for one in found.order_by("number")]


async def again(of: WebhookEndpoint) -> WebhookEndpoint:
    """The endpoint as it stands now."""
    async with database.own_connection():
        return await WebhookEndpoint.async_objects.aget(tenant_id=of.tenant_id, pk=of.pk)


async def until(of: WebhookEndpoint, *statuses: str, count: int = 1) -> list[WebhookDelivery]:
    """All deliveries of an endpoint, once there are `count` and each is in one of `statuses`."""

    async def reached() -> list[WebhookDelivery]:
        found = await deliveries(of)
        return found if len(found) >= count and all(one.status in statuses for one in found) else []

    return await eventually(reached)


async def until_tried(of: WebhookEndpoint, attempts: int = 1) -> WebhookDelivery:
    """The endpoint's only delivery, once so many tries of it are written down."""

    async def reached() -> WebhookDelivery | None:
        [found] = await deliveries(of) or [None]
        return found if found and found.lease_id is None and found.attempt >= attempts else None

    return await eventually(reached)


async def make_due(of: WebhookEndpoint) -> None:
    """What waits for its next try has waited long enough."""
    await database.fetch(
        "UPDATE queueing_webhookdelivery SET run_at = now() WHERE endpoint_id = %s AND status = 'pending'", [of.pk]
    )
    await database.fetch("NOTIFY webhooks")


async def seconds_to_go(of: WebhookEndpoint) -> float:
    """Until the next try of its only delivery."""
    sql = "SELECT extract(epoch FROM run_at - now())::float8 FROM queueing_webhookdelivery WHERE endpoint_id = %s"
    [[found]] = await database.fetch(sql, [of.pk])
    return found


async def events(payment: Payment, first: int, last: int, *, status: str = "succeeded") -> None:
    """Events `first` to `last` of a payment, numbered and committed as the service does it."""
    await database.fetch(
        """WITH numbered AS MATERIALIZED (
            SELECT payments_number(%(tenant)s, %(count)s) - %(count)s AS before
        )
        INSERT INTO payments_paymentevent (tenant_id, position, payment_id, sequence, status, attempt, at, detail)
        SELECT %(tenant)s, before + n, %(payment)s, %(first)s + n - 1, %(status)s, 0, now(), ''
        FROM numbered CROSS JOIN generate_series(1, %(count)s) AS n""",
        {
            "tenant": payment.tenant_id, "payment": payment.pk, "first": first, "count": last - first + 1, "status": status,
        },
    )  # fmt: skip
