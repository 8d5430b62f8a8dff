"""Addresses of jobs. Routes of ninja's are declared with their views."""

from django.urls import path

from queueing.jobs.api import callbacks, jobs, schedules, submit  # noqa: F401 - most routes are ninja's
from queueing.jobs.api.sockets import JobsSocket
from registry.edge.handler import by_method

api = [
    path("jobs", by_method(POST=submit.submit, GET=jobs.browse), name="jobs"),
    path("jobs/batch", by_method(POST=submit.submit_batch), name="jobs_batch"),
    path(
        "schedules/<str:name>",
        by_method(PUT=schedules.put, GET=schedules.one, DELETE=schedules.delete),
        name="schedule",
    ),
]
websocket_urlpatterns = [path("ws/jobs", JobsSocket.as_asgi())]
