"""Places for child processes: tenants take turns, long jobs of one keep no other waiting, and their number is bounded."""

from collections import Counter

from queueing.jobs.decisions import JobClaim
from queueing.jobs.processes.places import FURTHER, ORDINARY, Places
from queueing.jobs.work import JobWork
from queueing.models import Worker
from registry.data import database
from tests.conftest import Api, eventually
from tests.queueing.test_job_workers import until
from tests.queueing.test_jobs import get, post, submit

SEED = """
WITH tenants AS (
    INSERT INTO registry_tenant (slug, name, currency, status, mode, open, settings)
    SELECT 'places-' || n, '', 'BRL', 'active', 'sandbox', false, '{}' FROM generate_series(1, %(tenants)s) n RETURNING id
)
INSERT INTO queueing_job (tenant_id, uuid, kind, input, fingerprint, max_attempts, timeout, result_ttl, run_at)
SELECT id, gen_random_uuid(), 'test.sync', '{}', '', 5, 60, 60, now() - interval '1 minute'
FROM tenants CROSS JOIN generate_series(1, %(each)s)
"""
MANY = {"tenants": 100, "each": 3}


async def claim_of(work: JobWork, limit: int = 200) -> list[JobClaim]:
    work.shares.forget()
    async with database.own_connection():
        return await work.claim(1, limit)


async def test_a_tenants_long_jobs_in_all_places_do_not_keep_another_tenant_waiting(
    api: Api, stranger: Api, start
) -> None:
    await start()
    long = [
        await submit(api, kind="test.sync", input={"steps": 600, "seconds": 0.1}, timeout=120)
        for _ in range(ORDINARY + 2)
    ]

    async def running() -> list[str]:
        found = [job["id"] for job in long if (await get(api, f"/jobs/{job['id']}"))["status"] == "running"]
        return found if len(found) >= ORDINARY else []

    full = await eventually(running)
    other = await submit(stranger, kind="test.sync", input={"text": "short"})
    done = await until(stranger, other["id"], "succeeded")
    result = await get(stranger, f"/jobs/{other['id']}/result")
    still = await eventually(running)

    assert (result["text"], done["attempts"]) == ("short", 1)
    assert (set(still), len(still)) == (set(full), ORDINARY)
    for job in long:
        await post(api, f"/jobs/{job['id']}/cancel", 200 if job["id"] not in full else 202)


async def test_a_worker_reports_its_child_processes_and_places(api: Api, start) -> None:
    await start()
    job = await submit(api, kind="test.sync", input={"steps": 600, "seconds": 0.1}, timeout=120)
    await until(api, job["id"], "running")

    async def reported() -> list[Worker]:
        async with database.own_connection():
            return [one async for one in Worker.async_objects.filter(queue="jobs", processes=1)]

    [worker] = await eventually(reported)

    assert worker.places == ORDINARY
    await post(api, f"/jobs/{job['id']}/cancel", 202)


async def test_a_hundred_tenants_do_not_open_a_hundred_processes() -> None:
    await database.fetch(SEED, MANY)
    work = JobWork()

    claimed = [*await claim_of(work), *await claim_of(work), *await claim_of(work)]

    assert len(claimed) == ORDINARY + FURTHER
    assert set(Counter(claim.tenant_id for claim in claimed).values()) == {1}


async def test_when_all_places_are_taken_tenants_take_turns() -> None:
    tenants = 3 * (ORDINARY + FURTHER)
    await database.fetch(SEED, {"tenants": tenants, "each": 3})
    work, served, running = JobWork(), [], []
    while len(served) < 2 * tenants:
        running += await claim_of(work)
        first, *running = running
        served.append(first.tenant_id)
        work.release([first])

    assert set(Counter(served[:tenants]).values()) == {1}
    assert set(Counter(served[tenants:]).values()) == {1}


async def test_a_tenant_alone_has_the_ordinary_places_and_no_further_ones() -> None:
    await database.fetch(SEED, {"tenants": 1, "each": ORDINARY + FURTHER + 1})
    work = JobWork()

    first, second = await claim_of(work), await claim_of(work)
    work.release(first[:1])
    third = await claim_of(work)

    assert (len(first), second, len(third)) == (ORDINARY, [], 1)


async def test_a_tenant_gets_its_ordinary_place_back_while_another_holds_a_further_one() -> None:
    await database.fetch(SEED, {"tenants": 1, "each": ORDINARY + 1})
    work = JobWork()
    flood = await claim_of(work)
    await database.fetch(SEED.replace("'places-'", "'others-'"), {"tenants": 1, "each": 1})
    [other] = await claim_of(work)
    work.release(flood[:1])
    [again] = await claim_of(work)

    assert other.tenant_id != flood[0].tenant_id
    assert again.tenant_id == flood[0].tenant_id
    assert work.processes() == (ORDINARY + 1, ORDINARY)


def test_places_of_one_claim_go_to_each_tenant_before_any_gets_a_second() -> None:
    places = Places(ordinary=3, further=1)

    assert places.divide({(1, "a"): 9, (2, "a"): 9}) == {(1, "a"): 2, (2, "a"): 1}
    assert places.divide({(1, "a"): 9, (1, "b"): 9, (2, "a"): 1}) == {(1, "a"): 1, (1, "b"): 1, (2, "a"): 1}
    assert places.divide({(n, "a"): 9 for n in range(1, 7)}) == {(n, "a"): 1 for n in range(1, 5)}
