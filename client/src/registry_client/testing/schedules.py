"""Schedules of the test double. They fire only when they are run: the double has no clock."""

import httpx2

from registry_client.testing.jobs import FakeJobs, accepted
from registry_client.testing.wire import Answer, Asked, Json, Refused, Routes, answer, invalid

FIELDS = {"cron": "", "kind": "", "input": {}, "timezone": "UTC", "overlap": "skip", "catchUp": "one"}


class FakeSchedules:
    """The schedules that were stored, by name."""

    def __init__(self, routes: Routes, jobs: FakeJobs) -> None:
        self._jobs = jobs
        self._schedules: dict[str, Json] = {}
        one = "/schedules/{name}"
        routes.add("GET", "/schedules", lambda asked: answer({"items": list(self._schedules.values())}))
        routes.add("PUT", one, self._put)
        routes.add("GET", one, lambda asked, name: answer(self._find(name)))
        routes.add("DELETE", one, self._delete)
        routes.add("POST", f"{one}/run", self._run)
        routes.add("POST", f"{one}/pause", lambda asked, name: self._pause(name, paused=True))
        routes.add("POST", f"{one}/resume", lambda asked, name: self._pause(name, paused=False))

    def _find(self, name: str) -> Json:
        if name not in self._schedules:
            raise Refused(404, "unknown-schedule", "There is no such schedule.")
        return self._schedules[name]

    def _put(self, asked: Asked, name: str) -> Answer:
        body = asked.body
        for field in body:
            if field not in FIELDS:
                raise invalid(field, "unknown field")
        if len(str(body.get("cron", "")).split()) != 5:
            raise invalid("cron", "has five fields")
        self._jobs.check({"kind": body.get("kind"), "input": body.get("input", {})})
        self._schedules[name] = {"name": name, "paused": False, **FIELDS, **body}
        return answer(self._schedules[name])

    def _delete(self, asked: Asked, name: str) -> Answer:
        self._find(name)
        del self._schedules[name]
        return httpx2.Response(204)

    def _run(self, asked: Asked, name: str) -> Answer:
        found = self._find(name)
        job, _ = self._jobs.accept({"kind": found["kind"], "input": found["input"]})
        return accepted(job)

    def _pause(self, name: str, *, paused: bool) -> Answer:
        self._find(name)["paused"] = paused
        return answer(self._schedules[name])
