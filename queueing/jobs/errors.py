"""Errors of jobs with their HTTP status (RFC 9457)."""

from registry.errors import NotFound, Problem


class JobError(Problem):
    """Something is wrong with this job."""

    status = 409


class UnknownJob(NotFound):
    """There is no such job."""


class JobConflict(JobError):
    """There is another job under this id."""


class JobInputTooLarge(JobError):
    """The input is larger than allowed."""

    status = 413


class JobOver(JobError):
    """This job is over: it cannot be canceled any more."""


class JobNotFailed(JobError):
    """Only a job that has failed can be tried again."""


class JobUnfinished(JobError):
    """This job has no result yet."""


class JobResultExpired(JobError):
    """The result of this job has expired."""

    status = 410


class JobLinkInvalid(JobError):
    """This link to a job's file is not valid."""

    status = 403


class UnknownSchedule(NotFound):
    """There is no such schedule."""


class TooManySchedules(JobError):
    """The tenant has as many schedules as it may have."""
