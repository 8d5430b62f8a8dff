"""Schedules of the test double. They submit jobs only when they are run: the double has no clock."""

import re
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import httpx2
import msgspec

from registry_client.models.jobs import CatchUp, Overlap
from registry_client.testing.job import FIELDS as JOB_FIELDS
from registry_client.testing.jobs import FakeJobs, accepted
from registry_client.testing.wire import (
    Answer,
    Asked,
    Json,
    Refused,
    Routes,
    all_invalid,
    answer,
    invalid,
    iso,
    now,
    page,
)

OPTIONS = ("kind", "input", "priority", "maxAttempts", "timeout", "resultTtl", "callbackUrl")
FIELDS: Json = {"cron": None, "timezone": "UTC", "overlap": "skip", "catchUp": "one"}
DEFAULTS: Json = FIELDS | {name: JOB_FIELDS[name] for name in OPTIONS}
TYPES: dict[str, Any] = {"cron": str, "timezone": str, "overlap": Overlap, "catchUp": CatchUp}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
ZONE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*")
NO_ZONES = re.compile(r"(posix|right)/.*|localtime|posixrules|Factory")  # other files of the time zone database


class FakeSchedules:
    """The schedules that were saved, by name."""

    def __init__(self, routes: Routes, jobs: FakeJobs) -> None:
        self._jobs = jobs
        self._schedules: dict[str, Json] = {}
        self._latest: dict[str, str] = {}  # ids of the latest jobs
        one = "/schedules/{name}"
        routes.add(
            "GET", "/schedules", lambda asked: page(asked, [self._schedules[n] for n in sorted(self._schedules)])
        )
        routes.add("PUT", one, self._put)
        routes.add("GET", one, lambda asked, name: answer(self._details(name)))
        routes.add("DELETE", one, self._delete)
        routes.add("POST", f"{one}/run", self._run)
        routes.add("POST", f"{one}/pause", lambda asked, name: self._pause(name, paused=True))
        routes.add("POST", f"{one}/resume", lambda asked, name: self._pause(name, paused=False))

    def _find(self, name: str) -> Json:
        if name not in self._schedules:
            raise Refused(404, "unknown-schedule", "There is no such schedule.")
        return self._schedules[name]

    def _details(self, name: str) -> Json:
        latest = self._latest.get(name)
        return {**self._find(name), "next": [], "lastJob": latest and self._jobs.body_of(latest)}

    def _put(self, asked: Asked, name: str) -> Answer:
        body, known, at = asked.body, self._schedules.get(name), iso(now())
        self._check(name, body)
        times = {"createdAt": known["createdAt"] if known else at, "updatedAt": at, "nextAt": None}
        paused = {"paused": bool(known and known["paused"])}
        self._schedules[name] = {"name": name, **DEFAULTS, **body, **times, **paused}
        return answer(self._details(name), 200 if known else 201)

    def _check(self, name: str, body: Json) -> None:
        """Raises Refused (422). In the service's order: the name, the types, the job, the due times."""
        if not NAME.fullmatch(name):
            raise invalid("name", "wants letters, digits, dots, underscores and hyphens")
        if faults := _wrong_types(body):
            raise all_invalid(faults)
        self._jobs.check({"kind": body.get("kind"), "input": body.get("input", {})})
        if faults := _wrong_times(body.get("cron", ""), body.get("timezone", "UTC")):
            raise all_invalid(faults)

    def _delete(self, asked: Asked, name: str) -> Answer:
        self._find(name)
        del self._schedules[name]
        return httpx2.Response(204)

    def _run(self, asked: Asked, name: str) -> Answer:
        schedule = self._find(name)
        body = {field: schedule[field] for field in OPTIONS}
        job, how = self._jobs.accept(body, asked.headers.get("Idempotency-Key", ""))
        self._latest[name] = job.id
        return accepted(job, how)

    def _pause(self, name: str, *, paused: bool) -> Answer:
        self._find(name)["paused"] = paused
        return answer(self._details(name))


def _wrong_types(body: Json) -> dict[str, str]:
    """Fields that a schedule does not have, and those with a value that is not one of theirs; each with what is wrong."""
    faults = {field: "unknown field" for field in body if field not in DEFAULTS}
    for field in [name for name in TYPES if name in body]:
        try:
            msgspec.convert(body[field], TYPES[field])
        except msgspec.ValidationError as error:
            faults[field] = str(error)
    return faults


def _wrong_times(cron: str, timezone: str) -> dict[str, str]:
    """A time zone that there is not, and a cron expression without five fields, which are not read."""
    faults = {}
    if not _is_zone(timezone):
        faults["timezone"] = "is no IANA time zone such as Europe/Berlin"
    if len(cron.split()) != 5:
        faults["cron"] = "wants five fields: minute, hour, day of month, month, day of week"
    return faults


def _is_zone(name: str) -> bool:
    if name == "UTC":  # there also without a time zone database
        return True
    if not ZONE_NAME.fullmatch(name) or NO_ZONES.fullmatch(name):
        return False
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
