"""Guarded action on workers, of the console's page and of the admin: stop one, which finishes or gives back its rows and is
replaced by a new process."""

from django.http import HttpResponse

from queueing.models import Worker
from registry.edge.pages import PageRequest
from registry.edge.viewer import Visitor
from registry.operators.confirm import Action, confirm, recorded
from registry.operators.decide import Done
from registry.operators.rows import guarded

LABEL = "Stop, and replace by a new process"
WARNING = "They claim nothing more, finish their leased rows or give them back, and end. New ones start at once."

stop = guarded(
    "worker.stop", label=LABEL, warning=WARNING, expects={"stop_requested": False}, sets={"stop_requested": True}
)


async def of_worker(request: PageRequest, visitor: Visitor, worker: Worker, *, back: str) -> HttpResponse:
    """The confirmation page of `stop` in the console, and the action once it is confirmed."""

    async def change() -> Done:
        going = Worker.async_objects.filter(pk=worker.pk, stop_requested=False)
        done = await going.aupdate(stop_requested=True)
        return Done(rows=done, lost=1 - done)

    action = Action(
        name="worker.stop",
        label=LABEL,
        target=str(worker),
        count=int(not worker.stop_requested),
        noun="worker",
        warning=WARNING,
        perform=recorded(change, tenant_id=None),
        back=back,
        fields=[("do", "stop"), ("worker", str(worker.pk))],
    )
    return await confirm(request, visitor, action)
