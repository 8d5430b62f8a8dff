"""Addresses of the queue console's pages. The API's are in urls.py."""

from django.urls import path, register_converter

from queueing.console import pages
from registry.edge.navigation import NavigationEntry, register


class QueueName:
    """Any queue's name: with slashes, and with whatever else a name may hold."""

    regex = "(?s:.+)"

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


register_converter(QueueName, "queue")

# A queue's name ends its address, so that no name can be taken for another page.
urlpatterns = [
    path("queues", pages.queues, name="queues"),
    path("queues/<queue:name>", pages.queue, name="queue"),
    path("dead-letters/<queue:name>", pages.dead_letters, name="queue_dead_letters"),
    path("partitions/<uuid:partition>", pages.partition, name="queue_partition"),
    path("partitions/<uuid:partition>/messages/<int:seq>", pages.message, name="queue_message"),
]

register(
    NavigationEntry(
        label="Queues", path="/queues", group="Operations", order=20, below=("/dead-letters", "/partitions")
    )
)
