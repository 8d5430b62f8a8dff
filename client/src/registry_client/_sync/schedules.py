"""Schedules: when which job is submitted."""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack
from urllib.parse import quote

from registry_client._calls import Call, get, named, post, sending
from registry_client._jobs import ScheduleFields, accepted_job
from registry_client._retry import Safety
from registry_client._sync.http import Http
from registry_client.models.jobs import AcceptedJob, NewSchedule, Schedule, ScheduleList


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
        """A schedule. Raises NotFound."""
        return self._http.get_as(Schedule, get(_path(name)))

    def list(self) -> Sequence[Schedule]:
        """All schedules."""
        return (self._http.get_as(ScheduleList, get("/schedules"))).items

    def run(self, name: str) -> AcceptedJob:
        """Submit its job now. Not tried again if the service may have executed it."""
        return accepted_job(self._http.request(post(f"{_path(name)}/run", safety=Safety.ONCE)))

    def pause(self, name: str) -> Schedule:
        """Let it not fire until `resume`."""
        return self._http.get_as(Schedule, post(f"{_path(name)}/pause"))

    def resume(self, name: str) -> Schedule:
        """Let it fire again."""
        return self._http.get_as(Schedule, post(f"{_path(name)}/resume"))

    def delete(self, name: str) -> None:
        """Delete it; its jobs stay. Raises NotFound."""
        self._http.request(Call(method="DELETE", path=_path(name), headers=named()))


def _path(name: str) -> str:
    return f"/schedules/{quote(name, safe='')}"
