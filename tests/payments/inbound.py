"""Helpers for tests of inbound webhooks: an account at Stripe, deliveries over HTTP, stored rows."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import aiohttp

from payments.inbound.signature import sign
from payments.inbound.work import InboundWork
from payments.models import Processor
from registry.data import database
from registry.models import Tenant
from registry.tenants.encryption import seal
from tests.factories import in_thread, make_processor

SECRET = "whsec_of_the_tests"


def make_account(tenant: Tenant, name: str = "cards", *secrets: str, **fields: Any) -> Processor:
    """A processor of kind stripe whose webhooks are signed by `secrets`."""
    account = make_processor(tenant, name, kind="stripe", **fields)
    seal_secrets(account, *(secrets or (SECRET,)))
    return account


def seal_secrets(account: Processor, *secrets: str, key: str = "sk_test_1") -> None:
    kept = {"secretKey": key, "webhookSecrets": list(secrets)}
    account.secrets = seal(kept, place=f"processor {account.pk}")
    account.save()


def event(
    kind: str = "payment_intent.succeeded", object: dict[str, Any] | None = None, **fields: Any
) -> dict[str, Any]:
    """A snapshot event, as Stripe words it."""
    return {
        "id": f"evt_{uuid4().hex}",
        "object": "event",
        "api_version": "2026-01-28",
        "created": 1_790_000_000,
        "type": kind,
        "livemode": False,
        "pending_webhooks": 1,
        "data": {"object": object or {"id": f"pi_{uuid4().hex}", "object": "payment_intent", "metadata": {}}},
        **fields,
    }


async def deliver(
    server: str,
    account: Processor,
    what: dict[str, Any] | bytes,
    *,
    secrets: tuple[str, ...] = (SECRET,),
    at: float | None = None,
    address: str = "",
    headers: Any = None,
) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer to a delivery; signed unless `headers` say something else."""
    body = what if isinstance(what, bytes) else json.dumps(what).encode()
    signed = {"Stripe-Signature": sign(body, *(s.encode() for s in secrets), at=at)}
    path = f"/webhooks/stripe/{address or f'{account.tenant.slug}.{account.name}'}"
    async with (
        aiohttp.ClientSession(server) as session,
        session.post(path, data=body, headers=signed if headers is None else headers) as response,
    ):
        return response.status, await response.json()


async def rows(tenant: Tenant, columns: str = "event_id") -> list[Any]:
    """What was kept of the tenant's events, oldest first; of one column its values."""
    found = await database.fetch(
        f"SELECT {columns} FROM payments_inboundevent WHERE tenant_id = %s ORDER BY id", [tenant.pk]
    )
    return [row[0] if len(row) == 1 else tuple(row) for row in found]


@asynccontextmanager
async def handling() -> AsyncIterator[InboundWork]:
    """The work of inbound events, without its loop: `handled` runs what is due."""
    work = InboundWork()
    try:
        yield work
    finally:
        await work.close()


async def handled(work: InboundWork, *, worker: int = 1) -> list[bool]:
    """Claim what is due and handle it, all at once as a drain does."""
    taken = await work.claim(worker, 400)
    return [done for [done] in await asyncio.gather(*(work.run([one]) for one in taken))]


async def until_nothing_is_due(work: InboundWork) -> None:
    """Handle, and bring forward what waits for its next try, until every event is over."""
    while True:
        await handled(work)
        if not (await database.fetch("SELECT count(*) FROM payments_inboundevent WHERE closed IS NULL"))[0][0]:
            return
        await database.fetch("UPDATE payments_inboundevent SET run_at = now() WHERE closed IS NULL")


async def account_of(tenant: Tenant, *secrets: str, name: str = "cards", **fields: Any) -> Processor:
    return await in_thread(make_account, tenant, name, *secrets, **fields)
