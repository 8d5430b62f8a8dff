"""Schedules: when which job is submitted."""

from collections.abc import Generator, Mapping
from typing import Any, Unpack
from urllib.parse import quote
from uuid import UUID, uuid4

from registry_client._calls import Call, get, named, post, sending
from registry_client._jobs import ScheduleFields, accepted_job
from registry_client._sync.http import Http
from registry_client._sync.pages import items_of
from registry_client.models.common import Page
from registry_client.models.jobs import AcceptedJob, NewSchedule, Schedule


class Schedules:
    """The schedules of a tenant."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def put(
        self, name: str, *, cron: str, kind: str, input: Mapping[str, Any], **fields: Unpack[ScheduleFields]
    ) -> Schedule:
        """Create the schedule, or replace the one of this name. Raises ValidationFailed."""
        body = NewSchedule(cron=cron, kind=kind, input=input, **fields)
        return self._http.get_as(Schedule, sending("PUT", _path(name), body))

    def get(self, name: str) -> Schedule:
        """A schedule with its next due times and its latest job. Raises NotFound."""
        return self._http.get_as(Schedule, get(_path(name)))

    def page(self, *, limit: int = 100, cursor: str | None = None) -> Page[Schedule]:
        """A page of the list, by name."""
        return self._http.get_as(Page[Schedule], get("/schedules", {"limit": limit, "cursor": cursor}))

    def list(self, *, page_size: int = 100) -> Generator[Schedule]:
        """All schedules by name, page by page."""
        return items_of(lambda cursor: self.page(limit=page_size, cursor=cursor))

    def run(self, name: str, *, idempotency_key: UUID | str | None = None) -> AcceptedJob:
        """Submit its job now. The key is made before the first try, so that a retry cannot submit it twice."""
        headers = {"Idempotency-Key": str(idempotency_key or uuid4())}
        return accepted_job(self._http.request(post(f"{_path(name)}/run", headers=headers)))

    def pause(self, name: str) -> Schedule:
        """Let it submit no more jobs until `resume`."""
        return self._http.get_as(Schedule, post(f"{_path(name)}/pause"))

    def resume(self, name: str) -> Schedule:
        """Go on with the next due time."""
        return self._http.get_as(Schedule, post(f"{_path(name)}/resume"))

    def delete(self, name: str) -> None:
        """Delete it; its jobs stay. Raises NotFound, also where a first try deleted it and its answer was lost."""
        self._http.request(Call(method="DELETE", path=_path(name), headers=named()))


def _path(name: str) -> str:
    return f"/schedules/{quote(name, safe='')}"
