"""The tables of queueing: workers, the message queue, outbound webhooks."""

from queueing.models.broker import (
    Consumer,
    DeadMessage,
    Group,
    Maintenance,
    Message,
    Partition,
    Queue,
    Trace,
    Traffic,
)
from queueing.models.outbound import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from queueing.models.workers import SILENT_AFTER, Worker

__all__ = [
    "SILENT_AFTER",
    "Consumer",
    "DeadMessage",
    "Group",
    "Maintenance",
    "Message",
    "Partition",
    "Queue",
    "Trace",
    "Traffic",
    "WebhookAttempt",
    "WebhookDelivery",
    "WebhookEndpoint",
    "Worker",
]
