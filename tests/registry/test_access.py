"""Authentication: keys are stored as hashes, revoked within a second, and cached while the database is unavailable."""

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from registry.data import cache, database
from registry.data.loop import end_loop
from registry.errors import Unauthorized
from registry.models import ApiKey, Tenant
from registry.tenants import access, keys, links
from tests.conftest import Api, eventually, make_key
from tests.factories import in_thread, make_tenant
from tests.waiting import PATIENCE

A_SECOND = 1.0  # within which a revocation is seen everywhere


@pytest.fixture
def quick_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tenants and keys are read again four times as often as in the product."""
    assert cache.FRESH < cache.STALE < A_SECOND
    for cached in (access._keys, access._open):
        monkeypatch.setattr(cached, "fresh", cache.FRESH / 4)
        monkeypatch.setattr(cached, "stale", cache.STALE / 4)


async def change(model: Any, *, of: dict[str, Any], **fields: Any) -> None:
    async with database.own_connection():
        assert await model.async_objects.filter(**of).aupdate(**fields) == 1


async def answer(api: Api, method: str = "GET", path: str = "/payments", **options: Any) -> int:
    async with api.session.request(method, path, **options) as response:
        return response.status


async def revoke(key: str) -> None:
    async with database.own_connection():
        mine = await ApiKey.async_objects.aget(prefix=key.split("_")[1])
        assert await access.revoke_key(tenant_id=mine.tenant_id, prefix=mine.prefix)


# -- Keys that work, and how they are kept -----------------------------------------------------------------------


async def test_only_the_hash_of_a_key_is_kept(tenant, key):
    async with database.own_connection():
        kept = await ApiKey.async_objects.filter(tenant=tenant).values().aget()

    assert bytes(kept["digest"]) == hashlib.sha256(key.encode()).digest()
    assert key.split("_", 2)[2] not in str(kept)


async def test_a_key_acts_for_its_tenant_with_its_scopes(tenant, key):
    principal = await access.authenticate(f"Bearer {key}")

    assert (principal.tenant_id, principal.slug, principal.scopes) == (tenant.pk, tenant.slug, {"read", "write"})


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
async def test_the_scheme_is_read_in_any_case(server: str, key: str, scheme):
    async with Api(server) as api:
        assert await answer(api, headers={"Authorization": f"{scheme} {key}"}) == 200


@pytest.mark.parametrize(
    ("scopes", "reads", "writes"),
    [(["read"], 200, 403), (["write"], 403, 202), (["admin"], 200, 202), (["read", "write"], 200, 202)],
)
async def test_a_key_may_do_what_its_scopes_say(server: str, tenant, scopes, reads, writes):
    async with Api(server, await make_key(tenant, *scopes)) as api:
        assert await answer(api) == reads
        assert await answer(api, "POST", json={"amount": "1.00"}) == writes
        assert await answer(api, "POST", "/payments/batch", json={"items": [{"amount": "1.00"}]}) == (
            200 if writes == 202 else 403
        )


# -- Keys that do not ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        *(
            "",
            "Bearer",
            "Bearer ",
            "Bearer rk_",
            "Bearer rk__",
            "Bearer rk_abc",
            "Bearer rk_abc_def",
            "Basic YTpi",
            "Token {key}",
        ),
        *(
            "{key}",
            "Bearer {key}x",
            "Bearer x{key}",
            "Bearer {key} {key}",
            "Bearer {key},",
            "Bearer rk_{prefix}_",
            "Bearer {KEY}",
        ),
        *(
            "Bearer rk_' OR 1=1 --_x",
            "Bearer rk_" + "x" * 5000,
            "Bearer rk_\xff_\xfe",
            "Bearer rk_{prefix}_" + "A" * 43,
        ),
    ],
    ids=lambda header: header[:30],
)
async def test_an_invalid_key_is_401(server: str, key: str, header):
    header = header.format(key=key, KEY=key.upper(), prefix=key.split("_")[1])

    async with Api(server) as api, api.get("/payments", headers={"Authorization": header}) as response:
        assert response.status == 401
        assert response.content_type == "application/problem+json"
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert key not in await response.text()


async def test_no_key_is_401_where_there_is_no_open_tenant(server: str):
    async with Api(server) as api:
        assert await answer(api) == 401
        assert await answer(api, "POST", json={"amount": "1.00"}) == 401


async def test_an_expired_key_is_401(server: str, tenant):
    expired = await make_key(tenant, expires_at=timezone.now() - timedelta(seconds=1))

    async with Api(server, expired) as api:
        assert await answer(api) == 401


async def test_a_key_expires_while_it_is_in_use(server: str, tenant, quick_caches):
    brief = await make_key(tenant, expires_at=timezone.now() + timedelta(seconds=0.5))
    async with Api(server, brief) as api:
        assert await answer(api) == 200

        await eventually(lambda: gone(api), within=0.5 + A_SECOND + 1)


async def gone(api: Api) -> bool:
    return await answer(api) == 401


async def test_a_revoked_key_is_refused_within_a_second_though_it_is_in_use(api: Api, key):
    assert await answer(api) == 200
    await revoke(key)
    revoked = time.monotonic()

    await eventually(lambda: gone(api))

    assert time.monotonic() - revoked < A_SECOND
    assert [await answer(api) for _ in range(5)] == [401] * 5


async def test_a_revoked_key_is_refused_within_a_second_though_it_was_idle(api: Api, key):
    assert await answer(api) == 200
    await revoke(key)
    await asyncio.sleep(A_SECOND)  # the promise itself

    assert await answer(api) == 401


async def test_a_key_revoked_here_is_refused_in_another_process_within_a_second(key):
    known = threading.Event()
    elsewhere = asyncio.create_task(asyncio.to_thread(use_until_refused, key, known))
    await asyncio.to_thread(known.wait, timeout=PATIENCE)
    await revoke(key)
    revoked = time.monotonic()

    assert await elsewhere - revoked < A_SECOND


def use_until_refused(key: str, known: threading.Event) -> float:
    """Use a key like another process, with a loop, a pool and caches of its own. Returns when it was refused."""

    async def use() -> float:
        await access.authenticate(f"Bearer {key}")
        known.set()
        with suppress(Unauthorized):
            while True:
                await access.authenticate(f"Bearer {key}")
                await asyncio.sleep(0.01)
        refused = time.monotonic()
        await end_loop()
        return refused

    return asyncio.run(use())


async def test_a_suspended_tenant_is_refused_and_accepted_again_once_active(api: Api, tenant, quick_caches):
    assert await answer(api) == 200
    await change(Tenant, of={"pk": tenant.pk}, status=Tenant.Status.SUSPENDED)
    await eventually(lambda: gone(api), within=A_SECOND)

    await change(Tenant, of={"pk": tenant.pk}, status=Tenant.Status.ACTIVE)

    async def back() -> bool:
        return await answer(api) == 200

    await eventually(back, within=A_SECOND)


async def test_a_rotated_key_ends_and_its_successor_has_its_rights(server: str, tenant):
    old = await make_key(tenant, "read")
    async with database.own_connection():
        _, new = await keys.rotate(tenant_id=tenant.pk, prefix=old.split("_")[1], actor="test")

    async with Api(server, old) as before, Api(server, new) as after:
        assert (await answer(before), await answer(after)) == (401, 200)
        assert await answer(after, "POST", json={"amount": "1.00"}) == 403


async def test_a_rotated_key_with_grace_works_until_then(server: str, tenant, quick_caches):
    old = await make_key(tenant)
    async with database.own_connection():
        await keys.rotate(tenant_id=tenant.pk, prefix=old.split("_")[1], actor="test", grace=timedelta(seconds=0.5))

    async with Api(server, old) as api:
        assert await answer(api) == 200
        await eventually(lambda: gone(api), within=0.5 + A_SECOND + 1)


# -- Use -----------------------------------------------------------------------------------------------------------


async def last_used(tenant: Tenant) -> Any:
    async with database.own_connection():
        return await ApiKey.async_objects.filter(tenant=tenant).values_list("last_used_at", flat=True).aget()


async def test_the_last_use_of_a_key_is_recorded_once_a_minute(api: Api, tenant):
    assert await last_used(tenant) is None
    await answer(api)
    first = await eventually(lambda: last_used(tenant))
    assert timezone.now() - first < timedelta(seconds=10)

    await change(ApiKey, of={"tenant": tenant}, last_used_at=first - timedelta(seconds=120))

    async def noted() -> bool:
        await answer(api)
        return await last_used(tenant) >= first

    await eventually(noted)


async def test_a_cached_key_costs_no_query(tenant, key):
    await access.authenticate(f"Bearer {key}")
    before = database.statistics()["requests_num"]

    for _ in range(200):
        await access.authenticate(f"Bearer {key}")

    assert database.statistics()["requests_num"] - before <= 1  # at most one looks whether it still holds


# -- The open tenant -------------------------------------------------------------------------------------------------


async def test_an_open_tenant_may_be_made_later(server: str, monkeypatch, quick_caches):
    monkeypatch.setattr(settings, "REGISTRY_OPEN_TENANT", "later")
    async with Api(server) as api:
        assert await answer(api) == 401
        tenant = await in_thread(make_tenant, "later", open=True)

        async def let_in() -> bool:
            return await answer(api, "POST", json={"amount": "1.00"}) == 202

        await eventually(let_in, within=A_SECOND)
        await change(Tenant, of={"pk": tenant.pk}, open=False)
        await eventually(lambda: gone(api), within=A_SECOND)


async def test_the_setting_does_not_open_a_tenant_that_is_not_marked_open(server: str, tenant, monkeypatch):
    monkeypatch.setattr(settings, "REGISTRY_OPEN_TENANT", tenant.slug)

    async with Api(server) as api:
        assert await answer(api) == 401


async def test_an_invalid_key_is_not_accepted_as_the_open_tenant(server: str, monkeypatch):
    await in_thread(make_tenant, "wide", open=True)
    monkeypatch.setattr(settings, "REGISTRY_OPEN_TENANT", "wide")

    async with Api(server, "rk_abc_def") as api:
        assert await answer(api) == 401


# -- Without a database ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def no_database() -> AsyncIterator[None]:
    """PostgreSQL lets nobody into the test database, and has thrown everybody out."""
    here = connection.settings_dict
    there = {
        "host": here["HOST"],
        "port": here["PORT"],
        "user": here["USER"],
        "password": here["PASSWORD"],
        "dbname": "postgres",
    }
    async with await psycopg.AsyncConnection.connect(**there, autocommit=True) as outside:
        await outside.execute(f'ALTER DATABASE "{here["NAME"]}" ALLOW_CONNECTIONS false')
        try:
            await outside.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [here["NAME"]]
            )
            yield
        finally:
            await outside.execute(f'ALTER DATABASE "{here["NAME"]}" ALLOW_CONNECTIONS true')


async def test_an_outage_of_the_database_refuses_no_cached_key(key, monkeypatch, quick_caches):
    monkeypatch.setattr(database.pools.get(), "timeout", 0.5)  # seconds; 30 otherwise
    known = await access.authenticate(f"Bearer {key}")

    async with no_database():
        await asyncio.sleep(access._keys.stale)  # what it said is too old to be used unasked
        assert await access.authenticate(f"Bearer {key}") == known
        with pytest.raises(Exception) as unknown:
            await access.authenticate(f"Bearer rk_{uuid4().hex}_x")

    assert not isinstance(unknown.value, Unauthorized)  # nobody knows: 503, not 401
    assert unknown.value.status == 503
    await database.pools.close()  # it would wait before it connects again


async def test_a_cached_key_waits_for_an_unavailable_database_only_once(key, monkeypatch, quick_caches):
    monkeypatch.setattr(database.pools.get(), "timeout", 0.5)
    await access.authenticate(f"Bearer {key}")

    async with no_database():
        await asyncio.sleep(access._keys.stale)
        await access.authenticate(f"Bearer {key}")
        again = time.monotonic()
        for _ in range(50):
            await access.authenticate(f"Bearer {key}")

    assert time.monotonic() - again < cache.FRESH
    await database.pools.close()  # it would wait before it connects again


async def test_once_the_database_is_back_a_pool_full_of_dead_connections_delays_nobody(tenant):
    async def use() -> None:
        async with database.connection() as conn:
            await conn.execute("SELECT pg_sleep(0.2)")

    await asyncio.gather(*(use() for _ in range(20)))

    async with no_database():
        pass
    async with asyncio.timeout(5):
        found = await database.fetch("SELECT slug FROM registry_tenant WHERE id = %s", [tenant.pk])

    assert found == [(tenant.slug,)]


async def test_another_site_s_page_cannot_act_as_the_open_tenant(server, settings):
    tenant = await in_thread(make_tenant, f"open-{uuid4().hex[:8]}", open=True)
    settings.REGISTRY_OPEN_TENANT = tenant.slug
    async with Api(server) as visitor:
        async with visitor.post("/purge-payments", headers={"Origin": "https://elsewhere.example"}) as foreign:
            assert foreign.status == 403
        async with visitor.post("/purge-payments", headers={"Host": "elsewhere.example"}) as rebound:
            assert rebound.status == 400
        async with visitor.post("/purge-payments") as own:
            assert own.status == 200


# -- Links -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tenant_id", [1, 2**63 - 1])
def test_the_token_of_every_tenant_fits_and_shows_its_payment_alone(tenant_id: int):
    one, other = uuid4(), uuid4()

    token = links.token_of(tenant_id, one)

    assert (links.tenant_of(one, token), links.tenant_of(other, token)) == (tenant_id, None)


@pytest.mark.parametrize("token", ["f" * 5000, "f" * 5000 + ".AAAA", "1." + "A" * 5000], ids=len)
async def test_a_token_that_is_too_long_is_invalid_and_no_error(server: str, token: str):
    async with Api(server) as visitor:
        asked = await answer(visitor, path=f"/payments/{uuid4()}/events?wait=0&token={token}")

    assert asked == 404
