"""Submit jobs in this process, as the product's own code does: `python -m bench.jobs.submit TENANT JOBS TASKS PER_CALL`."""

import asyncio
import json
import sys
import time

import django
import uvloop

django.setup()

from queueing.jobs import store  # noqa: E402 - after the set-up, as the next ones
from queueing.jobs.job import JobReceipt, NewJob  # noqa: E402
from queueing.jobs.requests import of_service  # noqa: E402
from registry.data import database  # noqa: E402
from registry.data.loop import end_loop  # noqa: E402
from registry.models import Tenant  # noqa: E402

PAYLOAD = "0001-00001-000000001-bench--"


async def main(slug: str, jobs: int, tasks: int, per_call: int) -> dict[str, float]:
    async with database.own_connection():
        tenant = await Tenant.async_objects.aget(slug=slug)
    starts = iter(range(0, jobs, per_call))

    async def produce() -> None:
        for at in starts:
            if per_call == 1:
                receipts = [await store.submit(job(tenant.id))]
            else:
                receipts = await store.submit_many([job(tenant.id) for _ in range(min(per_call, jobs - at))])
            if refused := [one for one in receipts if not isinstance(one, JobReceipt)]:
                raise AssertionError(f"{len(refused)} jobs were refused: {refused[0]!r}")

    spent, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(produce() for _ in range(tasks)))
    said = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - spent}
    await end_loop()
    return said


def job(tenant_id: int) -> NewJob:
    return of_service("bed.nothing", {"payload": PAYLOAD}, tenant_id=tenant_id)


if __name__ == "__main__":
    print(json.dumps(uvloop.run(main(sys.argv[1], *map(int, sys.argv[2:])))))
