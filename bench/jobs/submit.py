"""Submit jobs in this process, as the product's own code does: `python -m bench.jobs.submit TENANT JOBS TASKS PER_CALL`."""

import asyncio
import json
import sys
import time
import uuid

import django
import uvloop

django.setup()

from queueing.jobs import store  # noqa: E402 - after the set-up, as the next ones
from queueing.jobs.job import JobReceipt, NewJob  # noqa: E402
from queueing.jobs.kinds import MAX_ATTEMPTS, TIMEOUT  # noqa: E402
from queueing.jobs.requests import RESULT_TTL  # noqa: E402
from queueing.jobs.start import start  # noqa: E402
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
                receipts = [await start("bed.nothing", tenant_id=tenant.id, input={"payload": PAYLOAD})]
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
    content = json.dumps({"payload": PAYLOAD}).encode()
    return NewJob(
        tenant_id=tenant_id,
        id=uuid.uuid4(),
        kind="bed.nothing",
        input=content,
        content=content,
        max_attempts=MAX_ATTEMPTS,
        timeout=TIMEOUT,
        result_ttl=RESULT_TTL,
    )


if __name__ == "__main__":
    print(json.dumps(uvloop.run(main(sys.argv[1], *map(int, sys.argv[2:])))))
