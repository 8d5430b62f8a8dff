"""The body of a request that saves a schedule, and the schedule's name."""

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from queueing.jobs.requests import JobOptions
from queueing.jobs.schedules.timing import LONGEST_CRON, LONGEST_ZONE
from registry.errors import Invalid

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


class ScheduleRequest(JobOptions, frozen=True, kw_only=True):
    """The body of `PUT /schedules/{name}`: the due times, and the job that each of them submits."""

    cron: Annotated[
        str,
        Meta(min_length=1, max_length=LONGEST_CRON, description="five fields; names, lists, ranges, steps, L and #"),
    ]
    timezone: Annotated[str, Meta(min_length=1, max_length=LONGEST_ZONE, description="IANA name")] = "UTC"
    overlap: Annotated[
        Literal["skip", "queue"], Meta(description="skip: no new job while one of the schedule is open")
    ] = "skip"
    catch_up: Annotated[
        Literal["one", "all", "none"], Meta(description="jobs for due times that passed while no worker was alive")
    ] = "one"


SCHEDULE = msgspec.json.Decoder(ScheduleRequest)


def check_name(name: str) -> None:
    """Raises Invalid (422)."""
    if not NAME.match(name):
        message = "wants up to 100 letters, digits, dots, underscores and hyphens, and begins with a letter or digit"
        raise Invalid(errors=[{"field": "name", "message": message}])
