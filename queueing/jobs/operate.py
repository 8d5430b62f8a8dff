"""Guarded actions on jobs, of the console and of the admin: cancel, retry what has failed, export all data of a tenant."""

from django.http import Http404, HttpResponse
from psycopg import AsyncConnection

from queueing.jobs import lifecycle
from queueing.jobs.requests import of_service
from queueing.jobs.store import QUEUE, submit
from queueing.models import Job, JobStatus
from queueing.templatetags.queues import address
from queueing.work import waking
from registry.edge.pages import PageRequest
from registry.edge.viewer import Visitor
from registry.errors import Problem
from registry.operators.confirm import Action, Confirmed, Perform, asked, confirm
from registry.operators.decide import Done, Moved, decide
from registry.operators.rows import guarded
from registry.tenants import audit

OPEN = (JobStatus.QUEUED, JobStatus.RUNNING)
FROM = {"cancel": OPEN, "retry": (JobStatus.FAILED,)}  # the states in which each applies
CANCEL, CANCEL_WARNING = "Cancel", "A queued job is canceled at once, a running one at its next checkpoint."
RETRY, RETRY_WARNING = (
    "Retry",
    "It is queued again with all of its attempts. What it did before it failed is not undone.",
)


def may_cancel(job: Job) -> bool:
    return job.status in FROM["cancel"] and not job.cancel_requested


def may_retry(job: Job) -> bool:
    return job.status in FROM["retry"]


async def of_job(request: PageRequest, visitor: Visitor, job: Job) -> HttpResponse:
    match asked(request)["do"]:
        case "cancel":
            action = _action(visitor, job, "cancel", CANCEL, CANCEL_WARNING, count=int(may_cancel(job)))
        case "retry":
            action = _action(visitor, job, "retry", RETRY, RETRY_WARNING, count=int(may_retry(job)))
        case _:
            raise Http404
    return await confirm(request, visitor, action)


def _action(visitor: Visitor, job: Job, do: str, label: str, warning: str, *, count: int) -> Action:
    return Action(
        name=f"job.{do}",
        label=f"{label} the job",
        target=str(job),
        count=count,
        noun="job",
        warning=warning,
        perform=_performing(do),
        back=address("job", job.uuid, tenant=visitor.tenant.slug),
        fields=[("do", do)],
        rows=[job],
    )


def _performing(change: str) -> Perform:
    """Change each job of the action in a transaction of its own."""

    async def perform(confirmed: Confirmed) -> Done:
        done = lost = 0
        errors = []
        for job in confirmed.action.rows:
            try:
                moved = await _change(change, job, confirmed)
            except Problem as problem:
                errors.append(f"{job}: {problem.detail}.")
                continue
            done, lost = done + moved, lost + (not moved)
        return Done(rows=done, lost=lost, errors=errors)

    return perform


async def _change(change: str, job: Job, confirmed: Confirmed) -> bool:
    """False if the job is in another state by now. Raises JobConflict (409)."""

    async def move(_: AsyncConnection) -> list[Moved]:
        before, event = await lifecycle.change_in_transaction(change, job)
        if before not in FROM[change]:
            return []
        events = [event] if event else []
        return [Moved(target=f"job {job.uuid}", tenant_id=job.tenant_id, detail={"kind": job.kind}, events=events)]

    async def wake() -> None:
        waking.wake(QUEUE)

    action, actor, reason = confirmed.action.name, confirmed.actor, confirmed.reason
    return bool(await decide(action=action, actor=actor, reason=reason, move=move, wake=wake))


# -- The export of a tenant --------------------------------------------------------------------------------------

EXPORT = "tenant.export"


async def export_tenant(request: PageRequest, visitor: Visitor) -> HttpResponse:
    async def perform(confirmed: Confirmed) -> Done:
        job = of_service(EXPORT, {}, tenant_id=visitor.tenant.pk, unique_key="console")
        receipt = await submit(job)
        if receipt.at_work:
            return Done(rows=0, warnings=["An export is being written already."])
        await audit.record(
            actor=confirmed.actor,
            action="tenant.export",
            target=f"job {receipt.id}",
            tenant_id=visitor.tenant.pk,
            reason=confirmed.reason,
        )
        return Done(rows=1)

    action = Action(
        name="tenant.export",
        label="Export all data",
        target=visitor.tenant.name,
        count=1,
        noun="file",
        plural="files",
        warning=(
            "A job writes all rows of this tenant into a file, personal data included. Members who may operate can "
            "download it from the job's page until it expires. Nothing is changed."
        ),
        perform=perform,
        back=address("settings", tenant=visitor.tenant.slug),
        fields=[("do", "export")],
    )
    return await confirm(request, visitor, action)


# -- In the admin --------------------------------------------------------------------------------------------

ADMIN_CANCEL = guarded(
    "job.cancel",
    label=CANCEL,
    warning=CANCEL_WARNING,
    expects={"closed": None, "cancel_requested": False},
    perform=_performing("cancel"),
)
ADMIN_RETRY = guarded(
    "job.retry", label=RETRY, warning=RETRY_WARNING, expects={"closed": "failed"}, perform=_performing("retry")
)
