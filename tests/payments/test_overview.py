"""The live part of the dashboard: one query for all viewers, and audited changes of sandbox processors."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from payments.models import Processor
from payments.pages import home
from registry.data import database
from registry.models import AuditEntry, Tenant
from tests.conftest import eventually
from tests.factories import in_thread, make_processor, make_tenant


@pytest.fixture
async def tenant(settings: Any) -> Tenant:
    """Open to anybody, with a sandbox processor."""
    tenant = await in_thread(make_tenant, f"shop-{uuid4().hex[:12]}", open=True)
    await in_thread(make_processor, tenant, "default", options={"currency": "BRL"})
    settings.REGISTRY_OPEN_TENANT = tenant.slug
    return tenant


@pytest.fixture
async def guest(server: str, tenant: Tenant) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(server, cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        yield browser


@pytest.fixture
def reads(monkeypatch) -> list[int]:
    """The tenants whose figures were read, one entry per time; the reading is the real one."""
    read: list[int] = []
    real = home._present

    async def counted(tenant_id: int) -> dict[str, Any]:
        read.append(tenant_id)
        return await real(tenant_id)

    monkeypatch.setattr(home.presents, "load", counted)
    return read


async def look(guest: aiohttp.ClientSession) -> str:
    async with guest.get("/overview") as response:
        assert response.status == 200
        return await response.text()


# -- One answer for all ----------------------------------------------------------------------------------------


async def test_a_hundred_open_dashboards_cost_one_query(guest, tenant, reads, monkeypatch):
    monkeypatch.setattr(home.presents, "fresh", 60.0)
    monkeypatch.setattr(home.presents, "stale", 60.0)

    seen = [*await asyncio.gather(*(look(guest) for _ in range(50))), *[await look(guest) for _ in range(50)]]

    assert reads == [tenant.pk]
    assert all("default" in text for text in seen)


async def test_the_figures_are_read_again_once_they_are_no_longer_fresh(guest, tenant, reads, monkeypatch):
    monkeypatch.setattr(home.presents, "fresh", 0.0)
    monkeypatch.setattr(home.presents, "stale", 0.0)

    await look(guest)
    await look(guest)

    assert reads == [tenant.pk] * 2


# -- Switches ---------------------------------------------------------------------------------------------------


async def turn(guest: aiohttp.ClientSession, behaviour: str) -> str:
    async with guest.get("/") as page:
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', await page.text())[1]
    form = {"behaviour": behaviour, "csrfmiddlewaretoken": token}
    headers = {"HX-Request": "true", "Referer": str(page.url)}
    async with guest.post("/processors/default/behaviour", data=form, headers=headers) as response:
        assert response.status == 200, await response.text()
        return await response.text()


async def trail(tenant: Tenant) -> list[AuditEntry]:
    async with database.own_connection():
        return [entry async for entry in AuditEntry.async_objects.filter(tenant=tenant).order_by("id")]


async def test_a_change_of_a_sandbox_is_in_the_audit_trail_with_its_previous_value(guest, tenant):
    await turn(guest, "fail")
    await turn(guest, "slow")

    written = [(e.actor, e.action, e.target, e.detail) for e in await trail(tenant)]
    assert written == [
        ("guest of the open tenant", "processor.behave", "processor default", {"behaviour": ["work", "fail"]}),
        ("guest of the open tenant", "processor.behave", "processor default", {"behaviour": ["fail", "slow"]}),
    ]


async def test_a_change_of_a_sandbox_that_cannot_be_recorded_is_not_made(guest, tenant):
    async with database.transaction() as conn:
        await conn.execute("LOCK TABLE registry_auditentry")
        turning = asyncio.create_task(turn(guest, "fail"))
        await eventually(entry_is_cut)
        with pytest.raises(AssertionError):
            await turning

    async with database.own_connection():
        processor = await Processor.async_objects.aget(tenant=tenant)
    assert processor.options == {"currency": "BRL"}


async def entry_is_cut() -> bool:
    sql = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND query LIKE '%%registry_auditentry%%' AND pid <> pg_backend_pid()"""
    return bool(await database.fetch(sql))


async def test_a_change_of_a_sandbox_is_shown_at_once_and_not_a_cached_value(guest, tenant, monkeypatch):
    monkeypatch.setattr(home.presents, "fresh", 60.0)
    monkeypatch.setattr(home.presents, "stale", 60.0)
    await look(guest)

    shown = await turn(guest, "fail")

    assert "It refuses every payment" in shown
    assert "It refuses every payment" in await look(guest)
