"""Addresses of jobs. Routes of ninja's are declared with their views."""

from django.urls import path

from queueing.jobs.api import jobs, submit
from queueing.jobs.api.sockets import JobsSocket
from registry.edge.handler import by_method

api = [
    path("jobs", by_method(POST=submit.submit, GET=jobs.browse), name="jobs"),
    path("jobs/batch", by_method(POST=submit.submit_batch), name="jobs_batch"),
]
websocket_urlpatterns = [path("ws/jobs", JobsSocket.as_asgi())]
