"""Kinds of jobs that come with queueing, one file each."""

from queueing.jobs.builtin import http, queue_rotate, tenant_export, webhooks_replay

__all__ = ["http", "queue_rotate", "tenant_export", "webhooks_replay"]
