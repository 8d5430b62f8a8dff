"""Template tags of the pages of jobs: state pills, the sentence on what happened, the timeline, progress."""

from datetime import datetime
from typing import Any

import msgspec
from django import template

from queueing.models import JOB_LOOKS, JobStatus
from queueing.models.jobs import JobLook
from queueing.templatetags import queues
from registry.data import clock
from registry.templatetags.figures import exact, span, when

register = template.Library()
register.filters.update(queues.register.filters)
register.tags.update(queues.register.tags)

WORKERS = {
    "alive": ("●", "green", "alive"),
    "stopping": ("◑", "amber", "stopping"),
    "silent": ("✕", "red", "silent"),
}
LATER = 1.0  # seconds until a queued job is due, from which its page names the time


# -- States --------------------------------------------------------------------------------------------------


def look_of(status: str) -> tuple[str, str, str]:
    """Shape, colour and word of a state."""
    found = JOB_LOOKS[JobStatus(status)]
    return found.shape, found.colour, status


@register.filter
def look(status: str) -> JobLook:
    return JOB_LOOKS[JobStatus(status)]


@register.inclusion_tag("registry/_pill.html")
def job_pill(status: str, size: str = "") -> dict[str, str]:
    return {**_pill(look_of(status), status), "size": size}


@register.inclusion_tag("registry/_pill.html")
def schedule_pill(paused: bool, due: Any) -> dict[str, str]:
    if paused:
        return _pill(("–", "grey", "paused"), "paused")
    return _pill(("●", "green", "active"), "active") if due else _pill(("✕", "red", "never due"), "never")


@register.inclusion_tag("registry/_pill.html")
def worker_pill(state: str) -> dict[str, str]:
    return _pill(WORKERS[state], state)


def _pill(look: tuple[str, str, str], status: str) -> dict[str, str]:
    return {"shape": look[0], "colour": look[1], "word": look[2], "status": status}


# -- Sentences -----------------------------------------------------------------------------------------------


@register.filter
def sentence(job: dict[str, Any]) -> str:
    """One sentence on what happened to a job: the object of `GET /jobs/{id}`."""
    return _SENTENCES[JobStatus(job["status"])](job)


def _queued(job: dict[str, Any]) -> str:
    in_future = (when(job["runAt"]) - clock.now()).total_seconds() > LATER
    if (error := job.get("error")) and job["attempts"]:
        then = f"the next one is due {exact(job['runAt'])}" if in_future else "it is tried again"
        return f"Attempt {job['attempts']} failed, {then}. {_reason(error)}"
    return f"Waiting until {exact(job['runAt'])}." if in_future else look(job["status"]).sentence


def _running(job: dict[str, Any]) -> str:
    if job["cancelRequested"]:
        return "Cancellation is requested: it stops at its next checkpoint."
    return f"A worker is running attempt {job['attempts']}."


def _succeeded(job: dict[str, Any]) -> str:
    took = span(when(job["finishedAt"]) - when(job["startedAt"]))
    attempts = "" if job["attempts"] == 1 else f", at attempt {job['attempts']}"
    return f"Done in {took}, {span(when(job['finishedAt']) - when(job['createdAt']))} after it was submitted{attempts}."


def _failed(job: dict[str, Any]) -> str:
    attempts = f"{job['attempts']} attempt{'' if job['attempts'] == 1 else 's'}"
    return f"Failed after {attempts}. {_reason(job.get('error') or {})}".strip()


def _canceled(job: dict[str, Any]) -> str:
    before = [event["status"] for event in job["timeline"]][-2:-1]
    return f"Canceled while it {'ran' if before == [JobStatus.RUNNING] else 'waited for a worker'}."


def _reason(error: dict[str, str]) -> str:
    text = error.get("detail") or error.get("code", "").replace("_", " ")
    return f"The reason: {text.rstrip('.')}." if text else ""


_SENTENCES = {
    JobStatus.QUEUED: _queued,
    JobStatus.RUNNING: _running,
    JobStatus.SUCCEEDED: _succeeded,
    JobStatus.FAILED: _failed,
    JobStatus.CANCELED: _canceled,
}


# -- Timeline and progress -----------------------------------------------------------------------------------


@register.filter
def steps(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The timeline in words, with the time since the submission."""
    first = job["timeline"][0] if job["timeline"] else None
    return [_step(event, first, job["createdAt"]) for event in job["timeline"]]


def _step(event: dict[str, Any], first: dict[str, Any] | None, created_at: str) -> dict[str, Any]:
    status = JobStatus(event["status"])
    words = {JobStatus.RUNNING: f"Attempt {event['attempt']} started", JobStatus.QUEUED: "Queued again"}
    if event is first and event["sequence"] == 1:
        words[JobStatus.QUEUED] = "Submitted"
    code = event.get("code", "").replace("_", " ")
    return {
        **event,
        "word": words.get(status, status.label),
        "look": JOB_LOOKS[status],
        "after": span(when(event["at"]) - when(created_at)),
        "code": "" if event["detail"] else code,
    }


@register.filter
def percent(progress: dict[str, Any]) -> int | None:
    """Progress from 0 to 100; None without a total."""
    done, total = progress["done"], progress.get("total")
    return max(0, min(100, 100 * done // total)) if total and total > 0 else None


@register.filter
def bar(job: dict[str, Any]) -> int | None:
    """How full the bar of a job is, from 0 to 100, if it has reported any progress; None while a total is not known. A job that has
    succeeded is done, whatever it reported last."""
    if job["status"] == JobStatus.SUCCEEDED:
        return 100
    share = percent(job["progress"]) if job.get("progress") else 0
    return 0 if share is None and job["finishedAt"] else share


@register.filter
def progress_text(progress: dict[str, Any]) -> str:
    """3,000 of 10,000: reading"""
    done, total, message = progress["done"], progress.get("total"), progress.get("message")
    counted = f"{done:,}" if total is None else f"{done:,} of {total:,}"
    return f"{counted}: {message}" if message else counted


@register.filter
def since(moment: datetime) -> str:
    """The time since a moment: 3.2 s."""
    return span(clock.now() - moment)


@register.filter
def pretty_json(text: str) -> str:
    """JSON on several lines, its numbers as they were written."""
    try:
        return queues.unescaped(msgspec.json.format(text, indent=2))
    except (msgspec.MsgspecError, RecursionError):
        return text
