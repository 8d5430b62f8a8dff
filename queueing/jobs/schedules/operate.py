"""Guarded actions on schedules, of the console's page and of the admin: pause, resume, run now, delete."""

from uuid import uuid4

from django.http import Http404, HttpResponse
from psycopg import AsyncConnection

from queueing.jobs import store
from queueing.jobs.schedules import schedules
from queueing.models import JobSchedule
from queueing.templatetags.queues import address
from registry.edge.pages import PageRequest
from registry.edge.viewer import Visitor
from registry.operators.confirm import Action, Confirmed, Perform, asked, confirm, recorded
from registry.operators.decide import Done, Moved, decide, each
from registry.operators.rows import guarded

PAUSE = "Due times submit no more jobs. Jobs that are open go on."
RESUME = "It goes on with the next due time: those that have passed meanwhile submit nothing."
RUN = "One job is submitted now, in addition to those of its due times."
DELETE = "Its jobs stay; no due time submits any more. This cannot be undone."


async def of_schedule(request: PageRequest, visitor: Visitor, schedule: JobSchedule) -> HttpResponse:
    do = asked(request)["do"]
    match do:
        case "pause":
            action = _action(visitor, schedule, do, "Pause", PAUSE, _switching(paused=True), schedule.paused is False)
        case "resume":
            action = _action(visitor, schedule, do, "Resume", RESUME, _switching(paused=False), schedule.paused)
        case "run":
            action = _action(visitor, schedule, do, "Run now", RUN, _run)
        case "delete":
            action = _action(visitor, schedule, do, "Delete", DELETE, _delete, severe=True)
        case _:
            raise Http404
    return await confirm(request, visitor, action)


def _action(
    visitor: Visitor,
    schedule: JobSchedule,
    do: str,
    label: str,
    warning: str,
    perform: Perform,
    applies: bool = True,
    *,
    severe: bool = False,
) -> Action:
    return Action(
        name=f"schedule.{do}",
        label=label,
        target=schedule.name,
        count=int(applies),
        noun="schedule",
        warning=warning,
        perform=perform,
        back=address("job_schedules", tenant=visitor.tenant.slug),
        fields=[("do", do)],
        rows=[schedule],
        severe=severe,
    )


async def _run(confirmed: Confirmed) -> Done:
    [schedule] = confirmed.action.rows
    receipt = await store.submit(schedules.job_of(schedule, id=uuid4()))

    async def note() -> Done:
        await schedules.note_job(schedule, receipt)
        return Done(rows=1)

    return await recorded(note, tenant_id=schedule.tenant_id, detail={"job": str(receipt.id)})(confirmed)


async def _delete(confirmed: Confirmed) -> Done:
    [schedule] = confirmed.action.rows

    async def remove() -> Done:
        await schedules.remove(tenant_id=schedule.tenant_id, name=schedule.name)
        return Done(rows=1)

    return await recorded(remove, tenant_id=schedule.tenant_id)(confirmed)


def _switching(*, paused: bool) -> Perform:
    """Pause or resume each schedule of the action in a transaction of its own."""

    async def perform(confirmed: Confirmed) -> Done:
        async def decision(schedule: JobSchedule) -> bool:
            return await _switch(schedule, confirmed, paused=paused)

        return await each(confirmed.action.rows, decision)

    return perform


async def _switch(schedule: JobSchedule, confirmed: Confirmed, *, paused: bool) -> bool:
    async def move(_: AsyncConnection) -> list[Moved]:
        if not await schedules.switch(tenant_id=schedule.tenant_id, name=schedule.name, paused=paused):
            return []
        return [Moved(target=f"schedule {schedule.name}", tenant_id=schedule.tenant_id)]

    name, actor, reason = confirmed.action.name, confirmed.actor, confirmed.reason
    return bool(await decide(action=name, actor=actor, reason=reason, move=move))


# -- In the admin --------------------------------------------------------------------------------------------

ADMIN_PAUSE = guarded(
    "schedule.pause", label="Pause", warning=PAUSE, expects={"paused": False}, perform=_switching(paused=True)
)
ADMIN_RESUME = guarded(
    "schedule.resume", label="Resume", warning=RESUME, expects={"paused": True}, perform=_switching(paused=False)
)
