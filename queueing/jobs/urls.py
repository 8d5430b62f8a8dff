"""Addresses of jobs: the API and the pages. Routes of ninja's are declared with their views."""

from django.urls import path

from queueing.jobs.api import callbacks, jobs, schedules, submit  # noqa: F401 - most routes are ninja's
from queueing.jobs.api.sockets import JobsSocket
from queueing.jobs.pages import export as _export  # noqa: F401 - a part of the page of settings
from queueing.jobs.pages import jobs as job_pages
from queueing.jobs.pages import schedules as schedule_pages
from queueing.jobs.pages import workers as worker_pages
from registry.edge.handler import by_method
from registry.edge.navigation import NavigationEntry, register

api = [
    path("jobs", by_method(POST=submit.submit, GET=jobs.browse), name="jobs"),
    path("jobs/batch", by_method(POST=submit.submit_batch), name="jobs_batch"),
    path(
        "schedules/<str:name>",
        by_method(PUT=schedules.put, GET=schedules.one, DELETE=schedules.delete),
        name="schedule",
    ),
]
# No id of a job is `list` or `schedules`, so these addresses hide none of the API's.
pages = [
    path("jobs/list", job_pages.jobs, name="job_list"),
    path("jobs/<uuid:uuid>/live", job_pages.job, name="job"),
    path("jobs/<uuid:uuid>/live/events", job_pages.job_events, name="job_events"),
    path("jobs/schedules", schedule_pages.schedules, name="job_schedules"),
    path("jobs/schedules/<str:name>", schedule_pages.schedule, name="job_schedule"),
    path("workers", worker_pages.workers, name="workers"),
]
websocket_urlpatterns = [path("ws/jobs", JobsSocket.as_asgi())]

register(NavigationEntry(label="Jobs", path="/jobs/list", group="Operations", order=30, below=("/jobs", "/workers")))
