"""Kinds of jobs that come with queueing, one file each."""

from queueing.jobs.builtin import http

__all__ = ["http"]
