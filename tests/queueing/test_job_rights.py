"""Which keys may do what with jobs and schedules of a kind that needs the scope admin."""

from collections.abc import AsyncIterator

import pytest

from queueing.models import JobSchedule
from registry.data import database
from registry.models import Tenant
from tests.conftest import Api, make_key
from tests.queueing.test_jobs import get, post, run, submit


@pytest.fixture
async def boss(server: str, tenant: Tenant) -> AsyncIterator[Api]:
    """A program whose key may administer."""
    async with Api(server, await make_key(tenant, "admin")) as client:
        yield client


async def test_a_file_with_all_data_of_the_tenant_is_offered_to_keys_that_may_export_it_only(
    api: Api, boss: Api
) -> None:
    job = await submit(boss, kind="tenant.export", input={})
    await run()

    assert "file" in await get(boss, f"/jobs/{job['id']}")
    assert "file" not in await get(api, f"/jobs/{job['id']}")


async def test_a_job_is_tried_again_by_a_key_that_may_submit_it_only(api: Api, boss: Api) -> None:
    job = await submit(boss, kind="test.admin", input={"text": "fail"})
    await run()

    await post(api, f"/jobs/{job['id']}/retry", 403)
    await post(boss, f"/jobs/{job['id']}/retry", 202)


async def test_a_schedule_is_changed_by_keys_that_may_submit_its_jobs_only(api: Api, boss: Api) -> None:
    body = {"cron": "0 6 * * *", "kind": "test.admin"}
    async with boss.session.put("/schedules/nightly", json=body) as response:
        assert response.status == 201

    for change in ("pause", "resume", "run"):
        await post(api, f"/schedules/nightly/{change}", 403)
    async with api.session.put("/schedules/nightly", json={**body, "kind": "test.echo"}) as replaced:
        assert replaced.status == 403
    async with api.session.delete("/schedules/nightly") as deleted:
        assert deleted.status == 403
    async with database.own_connection():
        [found] = [one async for one in JobSchedule.async_objects.all()]
    assert (found.kind, found.paused) == ("test.admin", False)
