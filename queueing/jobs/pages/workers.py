"""The console's page of workers, for superusers only: workers serve all tenants. The action is in queueing/work/operate.py."""

from itertools import groupby
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render

from queueing.jobs import figures
from queueing.jobs.figures import HeldJob
from queueing.models import SILENT_AFTER, Worker
from queueing.templatetags.queues import address
from queueing.work.operate import of_worker
from registry.data import clock
from registry.edge.pages import PageRequest, known, nowhere, page
from registry.edge.viewer import SUPERUSER, visitor_of
from registry.operators.confirm import asked

SHOWN = 5  # jobs of one worker


@page("GET", "HEAD", "POST")
async def workers(request: PageRequest) -> HttpResponse:
    """All workers by pool, with what they do now; for htmx only the part that is refreshed."""
    visitor = await visitor_of(request)
    if visitor is None:
        return await nowhere(request)
    if visitor.role != SUPERUSER:
        raise Http404
    here = address("workers", tenant=visitor.tenant.slug)
    if "do" in asked(request):
        return await of_worker(request, await known(request), await _asked_worker(request), back=here)
    found = [worker async for worker in Worker.async_objects.order_by("pool", "queue", "id")]
    held = await figures.held_by([worker.pk for worker in found])
    pools = [_pool(name, list(mine), held) for name, mine in groupby(found, key=lambda worker: worker.pool)]
    context = {"visitor": visitor, "pools": pools, "here": here}
    return render(request, f"queueing/jobs/{'_workers' if request.htmx else 'workers'}.html", context)


async def _asked_worker(request: HttpRequest) -> Worker:
    number = asked(request).get("worker", "")
    digits = number.isascii() and number.isdigit() and len(number) < 19
    found = await Worker.async_objects.filter(pk=int(number)).afirst() if digits else None
    if found is None or asked(request)["do"] != "stop":
        raise Http404
    return found


def _pool(name: str, mine: list[Worker], held: dict[int, list[HeldJob]]) -> dict[str, Any]:
    return {
        "name": name,
        "takes": mine[0].takes,
        "size": mine[0].pool_size.replace("-", " to "),
        "workers": [_row(worker, held[worker.pk]) for worker in mine],
    }


def _row(worker: Worker, held: list[HeldJob]) -> dict[str, Any]:
    age = clock.now() - worker.heartbeat_at
    state = "silent" if age >= SILENT_AFTER else "stopping" if worker.stop_requested else "alive"
    return {
        "worker": worker,
        "state": state,
        "age": max(age.total_seconds(), 0),
        "use": max(_percent(worker.in_flight, worker.capacity), _percent(worker.processes, worker.places)),
        "jobs": held[:SHOWN],
        "more": len(held) - len(held[:SHOWN]),
    }


def _percent(used: int, of: int) -> int:
    return min(round(100 * used / of), 100) if of else 0
