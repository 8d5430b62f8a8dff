"""Jobs of the test double: the API, and what a test decides about them."""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import msgspec

from registry_client.models.jobs import Job
from registry_client.testing.changes import Changes
from registry_client.testing.job import FIELDS, FakeJob, JobFailed
from registry_client.testing.streams import FakeStream
from registry_client.testing.wire import Answer, Asked, Json, Refused, Routes, answer, invalid, iso, page

URL = "http://registry.test"

type Function = Callable[[Any], Any]


class FakeJobs:
    """The jobs that the double accepted, in order. Kinds are those that the test registered; others are 422."""

    def __init__(self, routes: Routes, changes: Changes) -> None:
        self.stream = FakeStream("job", changes)
        self._kinds: dict[str, Function] = {}
        self._jobs: dict[str, FakeJob] = {}
        self._keys: dict[str, str] = {}  # idempotency keys and the jobs that they made
        self._changes, self._held = changes, False
        self._add_routes(routes)

    # -- What a test decides ---------------------------------------------------------------------------------------

    def kind(self, name: str, function: Function = lambda _input: None) -> None:
        """Accept jobs of this kind; `function` gets the input and returns the result, or raises: then the job has failed."""
        self._kinds[name] = function

    def holds(self) -> None:
        """Jobs that are accepted from now on stay queued until `run`."""
        self._held = True

    def run(self, job_id: UUID) -> None:
        """Run a job that is held, or due later."""
        with self._changes.lock:
            self._run(self._queued(job_id))

    def reports(self, job_id: UUID, done: int, total: int | None = None, message: str = "") -> None:
        """The job is running, and says how far it is."""
        with self._changes.lock:
            job = self._find(str(job_id))
            if job.status == "queued":
                job.start()
            job.report({"done": done, "total": total, "message": message})

    @property
    def all(self) -> list[Job]:
        """All jobs as they are, in the order in which they were accepted."""
        with self._changes.lock:
            return [msgspec.convert(one.body(), Job) for one in self._jobs.values()]

    def _queued(self, job_id: UUID) -> FakeJob:
        job = self._find(str(job_id))
        if job.is_over:
            raise ValueError(f"the job is {job.status}")
        return job

    def _run(self, job: FakeJob) -> None:
        if job.status == "queued":
            job.start()
        try:
            result = self._kinds[job.kind](job.content["input"])
        except JobFailed as error:
            job.end("failed", error={"code": error.code, "detail": error.detail})
        except Exception as error:
            job.end("failed", error={"code": "error", "detail": f"{type(error).__name__}: {error}"})
        else:
            job.end("succeeded", result=result)

    # -- Submitting ------------------------------------------------------------------------------------------------

    def _add_routes(self, routes: Routes) -> None:
        one = "/jobs/{job}"
        routes.add("POST", "/jobs", self._post)
        routes.add("GET", "/jobs", self._list)
        routes.add("POST", "/jobs/batch", self._batch)
        routes.add("GET", one, lambda asked, job: answer(self._find(job).details()))
        routes.add("GET", f"{one}/events", lambda asked, job: self.stream.poll(asked, self._find(job).id))
        routes.add("GET", f"{one}/result", self._result)
        routes.add("POST", f"{one}/cancel", self._cancel)
        routes.add("POST", f"{one}/retry", self._retry)

    def _post(self, asked: Asked) -> Answer:
        job, how = self.accept(asked.body, asked.headers.get("Idempotency-Key", ""))
        if how == "at_work":
            return answer(job.details())
        return accepted(job, how)

    def accept(self, body: Mapping[str, Any], key: str = "") -> tuple[FakeJob, str]:
        """The job, and whether it was `queued`, `replayed` or is `at_work`. Raises Refused (409, 422)."""
        self.check(body)
        if found := self._jobs.get(self._keys.get(key, "")):
            if found.content != {**FIELDS, **body}:
                raise Refused(409, "job-conflict", "There is another job under this id.")
            return found, "replayed"
        if found := self._at_work(body["kind"], body.get("uniqueKey")):
            return found, "at_work"
        job = FakeJob(dict(body), self.stream)
        self._jobs[job.id] = job
        if key:
            self._keys[key] = job.id
        if not self._held and job.is_due:
            self._run(job)
        return job, "queued"

    def check(self, body: Mapping[str, Any]) -> None:
        """Raises Refused (422)."""
        for name in body:
            if name not in FIELDS:
                raise invalid(name, "unknown field")
        if body.get("kind") not in self._kinds:
            raise invalid("kind", f"there is no kind {body.get('kind')!r}; there are {', '.join(sorted(self._kinds))}")
        if not isinstance(body.get("input", {}), dict):
            raise invalid("input", "Expected `object`")

    def _at_work(self, kind: str, unique_key: str | None) -> FakeJob | None:
        wanted = (kind, unique_key)
        found = (one for one in self._jobs.values() if (one.kind, one.content["uniqueKey"]) == wanted)
        return next((one for one in found if unique_key and not one.is_over), None)

    def _batch(self, asked: Asked) -> Answer:
        items = asked.body.get("items")
        if not isinstance(items, list) or not 1 <= len(items) <= 1000:
            raise invalid("items", "has 1 to 1000 items")
        return answer({"results": [self._batch_result(item) for item in items]})

    def _batch_result(self, item: Json) -> Json:
        try:
            job, how = self.accept(item)
        except Refused as refused:
            error = {"detail": refused.detail, "errors": refused.errors or []}
            return {"id": None, "status": "conflict" if refused.status == 409 else "invalid", "error": error}
        return {"id": job.id, "status": how}

    def body_of(self, job: str) -> Json:
        return self._find(job).body()

    # -- Reading and changing --------------------------------------------------------------------------------------

    def _find(self, job: str) -> FakeJob:
        if job not in self._jobs:
            raise Refused(404, "unknown-job", "There is no such job.")
        return self._jobs[job]

    def _list(self, asked: Asked) -> Answer:
        status, kind = asked.query.get("status"), asked.query.get("kind")
        start, end = asked.time("from"), asked.time("to")
        found = [
            one
            for one in reversed(self._jobs.values())
            if (not status or one.status == status)
            and (not kind or one.kind == kind)
            and (start is None or one.created_at >= start)
            and (end is None or one.created_at <= end)
        ]
        return page(asked, [one.body() for one in found])

    def _result(self, asked: Asked, job: str) -> Answer:
        found = self._find(job)
        if found.status != "succeeded":
            raise Refused(409, "job-unfinished", f"this job is {found.status}: it has no result")
        return answer(found.result)

    def _cancel(self, asked: Asked, job: str) -> Answer:
        found = self._find(job)
        if found.status in ("succeeded", "failed"):
            raise Refused(409, "job-over", f"this job has {found.status} already")
        if found.status != "canceled":
            found.end("canceled")
        return answer(found.details())

    def _retry(self, asked: Asked, job: str) -> Answer:
        found = self._find(job)
        if found.status != "failed":
            text = f"this job is {found.status}: only a job that has failed can be tried again"
            raise Refused(409, "job-not-failed", text)
        found.again()
        response = answer(found.details(), 202)
        if not self._held:
            self._run(found)
        return response


def accepted(job: FakeJob, how: str = "queued") -> Answer:
    """202: the job is durable."""
    body = {"id": job.id, "kind": job.kind, "status": "queued", "createdAt": iso(job.created_at)}
    address = f"{URL}/jobs/{job.id}"
    headers = {"Idempotent_Replayed": "true"} if how == "replayed" else {}
    return answer(body | {"statusUrl": address}, 202, Location=address, **headers)
