"""Log of API requests: errors all, successes sampled, written in batches after the answers; lost entries are counted."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from limits import RateLimitItemPerDay

from registry.data import database, db_breaker
from registry.edge import request_log
from registry.edge.request_log import BURST, INTERVAL, SUCCESSES, RequestLog, id_at
from registry.models import ApiRequest, Tenant
from registry.telemetry import metrics
from registry.tenants import erasure, export
from tests.conftest import Api, eventually, make_key
from tests.factories import in_thread, make_tenant


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "EVERY", 0.02)


async def ask(api: Api, path: str, **headers: str) -> int:
    async with api.get(path, headers=headers) as response:
        await response.read()
        return response.status


async def logged(tenant: Tenant) -> list[ApiRequest]:
    async with database.own_connection():
        return [one async for one in ApiRequest.async_objects.filter(tenant=tenant).order_by("id")]


async def once_logged(tenant: Tenant, count: int) -> list[ApiRequest]:
    async def found() -> list[ApiRequest] | None:
        rows = await logged(tenant)
        return rows if len(rows) >= count else None

    return await eventually(found)


async def all_written() -> None:
    await eventually(lambda: request_log.logs.get()._task is None)


def lost(outcome: str) -> float:
    return metrics.REQUEST_LOG.labels(outcome)._value.get()


# -- What is kept ------------------------------------------------------------------------------------------------


async def test_a_request_is_logged_with_its_key_answer_and_duration(api: Api, tenant: Tenant, key: str):
    before = datetime.now(UTC)
    assert await ask(api, "/payments?limit=0", **{"X-Request-Id": "of-the-test-1"}) == 422

    [found] = await once_logged(tenant, 1)

    assert (found.method, found.path, found.status, found.code) == ("GET", "/payments", 422, "invalid")
    assert (found.key, found.request_id) == (key.split("_")[1], "of-the-test-1")
    assert before - timedelta(seconds=1) < found.at < datetime.now(UTC)
    assert 0 < found.duration < 10_000_000


@pytest.mark.parametrize("path", ["/webhook-endpoints", f"/payments/{UUID(int=1)}/refunds", "/api/v1/push"])
async def test_the_code_of_an_error_is_logged_whichever_way_the_view_is_made(api: Api, tenant: Tenant, path: str):
    async with api.post(path, json=[]) as response:
        answer = await response.json()

    [found] = await once_logged(tenant, 1)

    assert found.code == answer["type"].rpartition(":")[2] != ""


async def test_neither_queries_nor_bodies_nor_headers_are_kept(api: Api, tenant: Tenant, key: str):
    async with api.post("/payments?token=hush", json={"amount": "1.00", "description": "hush"}) as response:
        assert response.status == 202
    await ask(api, f"/payments/{key}")

    found = await once_logged(tenant, 2)

    kept = str([[getattr(row, field.attname) for field in row._meta.concrete_fields] for row in found])
    assert "hush" not in kept
    assert key.split("_", 2)[2] not in kept
    assert found[1].path.endswith("[redacted]")


async def test_requests_without_a_valid_key_are_in_nobodys_log(server: str, tenant: Tenant):
    async with Api(server, "rk_abcdefabcdef_nothing") as api:
        assert await ask(api, "/payments") == 401
    async with Api(server, await make_key(tenant)) as api:
        assert await ask(api, "/payments") == 200

    assert [row.status for row in await once_logged(tenant, 1)] == [200]


async def test_each_tenant_has_its_own_entries_only(api: Api, stranger: Api, tenant: Tenant):
    await asyncio.gather(ask(api, "/payments?limit=0"), ask(stranger, "/payments?limit=0"))
    await once_logged(tenant, 1)
    await all_written()

    assert len(await logged(tenant)) == 1


# -- Sampling -------------------------------------------------------------------------------------------------------


async def test_errors_are_all_kept_and_successes_sampled(api: Api, tenant: Tenant, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(request_log, "BURST", 2)
    for _ in range(5):
        await ask(api, "/payments")
        await ask(api, "/payments?limit=0")
    await all_written()

    statuses = [row.status for row in await logged(tenant)]

    assert (statuses.count(422), statuses.count(200)) == (5, 2)


def test_a_process_keeps_at_most_a_thousand_successes_of_a_key_in_any_day():
    busy = RequestLog()
    kept = [second for second in range(3 * 24 * 3600) if busy.is_sampled("busy", 1e6 + second)]

    for start in range(0, 2 * 24 * 3600, 3600):
        assert sum(start <= second < start + 24 * 3600 for second in kept) <= SUCCESSES
    assert len(kept) == pytest.approx(BURST + 3 * 24 * 3600 / INTERVAL, abs=2)  # also at the end of a day


async def test_processes_share_the_limit_of_a_day(api: Api, tenant: Tenant, monkeypatch: pytest.MonkeyPatch):
    """Each process counts for itself first; what is written is counted in Redis."""
    monkeypatch.setattr(request_log, "DAY", RateLimitItemPerDay(2))
    for _ in range(4):
        request_log.logs.get()._next.clear()  # as another process
        await ask(api, "/payments")
        await all_written()
    await ask(api, "/payments?limit=0")

    assert [row.status for row in await once_logged(tenant, 3)] == [200, 200, 422]


def test_what_a_process_knows_of_keys_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(request_log, "KEYS", 3)
    requests = RequestLog()

    assert all(requests.is_sampled(f"key {n}", 1e6) for n in range(10))
    assert len(requests._next) == 3


# -- Losses ---------------------------------------------------------------------------------------------------------


async def test_no_request_waits_for_its_entry(api: Api, tenant: Tenant):
    """The table is locked meanwhile."""
    locked, answered = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("LOCK TABLE registry_apirequest")
            loop.call_soon_threadsafe(locked.set)
            asyncio.run_coroutine_threadsafe(answered.wait(), loop).result(10)

    before = lost("database away")
    holding = asyncio.create_task(in_thread(hold))
    await locked.wait()
    assert await ask(api, "/payments?limit=0") == 422
    await eventually(lambda: lost("database away") > before)  # slow is as good as away: it is not waited for
    answered.set()
    await holding
    assert await ask(api, "/payments?limit=0") == 422

    assert await once_logged(tenant, 1)  # two, if the server was faster than the request to cancel the first


async def test_entries_are_dropped_and_counted_while_the_database_is_away(api: Api, tenant: Tenant):
    await ask(api, "/payments?limit=1")  # the key is known
    await all_written()
    before, breaker = lost("database away"), db_breaker.current()
    breaker.away = True
    try:
        assert await ask(api, "/payments?limit=0") == 422
        await eventually(lambda: lost("database away") == before + 1)
    finally:
        breaker.away = False

    assert [row.status for row in await logged(tenant)] == [200]


async def test_entries_beyond_the_buffer_are_dropped_and_counted(
    api: Api, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(request_log, "BUFFER", 2)
    monkeypatch.setattr(request_log, "EVERY", 1.0)
    await all_written()
    before = lost("buffer full")

    for _ in range(5):
        await ask(api, "/payments?limit=0")

    assert lost("buffer full") == before + 3
    assert len(await once_logged(tenant, 2)) == 2


async def test_what_waits_is_written_at_the_end_of_the_loop(tenant: Tenant, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(request_log, "EVERY", 60.0)
    requests = RequestLog()
    requests.add(entry(tenant, time.time()))

    await requests.close()

    assert len(await logged(tenant)) == 1


async def test_a_character_that_cannot_be_stored_is_replaced(tenant: Tenant):
    await request_log._write([entry(tenant, time.time())._replace(path="/payments/\0\ud800")])

    [found] = await logged(tenant)
    assert found.path == "/payments/\ufffd?"


async def test_a_long_path_is_cut_after_its_secrets_are_replaced(api: Api, tenant: Tenant, key: str):
    before = f"/payments/{'x' * (request_log.PATH - 30)}."
    assert await ask(api, f"{before}{key}{'y' * 3000}") == 404

    [found] = await once_logged(tenant, 1)
    assert found.path.startswith(f"{before}rk_")
    assert key.split("_", 2)[2][:4] not in found.path
    assert len(found.path) <= request_log.PATH


# -- Retention ------------------------------------------------------------------------------------------------------


def entry(tenant: Tenant, moment: float, number: int = 0) -> request_log.LoggedRequest:
    of = {"key": "abcdefabcdef", "method": "GET", "path": "/payments", "status": 404, "code": "not-found"}
    return request_log.LoggedRequest(tenant.pk, id_at(moment) + number, **of, duration=1000, request_id="r")


async def test_entries_older_than_seven_days_are_removed_in_slices(tenant: Tenant, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(request_log, "SLICE", 2)
    other, now, day = await in_thread(make_tenant), time.time(), 24 * 3600
    for owner in (tenant, other):
        old = [entry(owner, now - 7 * day - 60, n) for n in range(5)]
        await request_log._write([*old, entry(owner, now - 7 * day + 60)])

    assert await request_log.trim() == 10

    assert [len(await logged(owner)) for owner in (tenant, other)] == [1, 1]


async def test_entries_are_exported_and_their_paths_erased_with_the_tenant(tenant: Tenant):
    await request_log._write([entry(tenant, time.time())])

    async def lines() -> list[Any]:
        return [
            line async for label, page in export.export(tenant.pk) if label == "registry.ApiRequest" for line in page
        ]

    assert '"path": "/payments"' in (await lines())[0]
    async with database.own_connection():
        await erasure.erase(tenant_id=tenant.pk, actor="test", reason="they asked for it")
    assert '"path": ""' in (await lines())[0]
