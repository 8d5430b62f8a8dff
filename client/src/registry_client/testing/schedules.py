"""Schedules of the test double. They submit jobs only when they are run: the double has no clock."""

import re

import httpx2

from registry_client.testing.job import FIELDS as JOB_FIELDS
from registry_client.testing.jobs import FakeJobs, accepted
from registry_client.testing.wire import Answer, Asked, Json, Refused, Routes, answer, invalid, iso, now, page

OPTIONS = ("kind", "input", "priority", "maxAttempts", "timeout", "resultTtl", "callbackUrl")
FIELDS: Json = {"cron": None, "timezone": "UTC", "overlap": "skip", "catchUp": "one"}
DEFAULTS: Json = FIELDS | {name: JOB_FIELDS[name] for name in OPTIONS}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


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
        """Raises Refused (422)."""
        if not NAME.fullmatch(name):
            raise invalid("name", "wants letters, digits, dots, underscores and hyphens")
        for field in body:
            if field not in DEFAULTS:
                raise invalid(field, "unknown field")
        if len(str(body.get("cron", "")).split()) != 5:
            raise invalid("cron", "wants five fields")
        self._jobs.check({"kind": body.get("kind"), "input": body.get("input", {})})

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
