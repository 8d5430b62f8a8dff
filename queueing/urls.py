"""Addresses of the message queue's API (queue contract section 1)."""

from django.urls import path

from queueing.views import groups, machine, plane, status
from queueing.views.edge import route

urlpatterns = [
    path("api/v1/push", route(POST=plane.push)),
    path("api/v1/pop", route(GET=plane.pop)),
    path("api/v1/pop/queue/<path:queue>/partition/<path:partition>", route(GET=plane.pop)),
    path("api/v1/pop/queue/<path:queue>", route(GET=plane.pop)),
    path("api/v1/ack", route(POST=plane.ack)),
    path("api/v1/ack/batch", route(POST=plane.ack_batch)),
    path("api/v1/transaction", route(POST=plane.transaction)),
    path("api/v1/lease/<str:lease>/extend", route(POST=plane.extend)),
    # Consumer groups (section 1.4)
    path("api/v1/consumer-groups", route(GET=groups.all_groups)),
    path("api/v1/consumer-groups/lagging", route(GET=groups.lagging)),
    path(
        "api/v1/consumer-groups/<path:group>/queues/<path:queue>/partitions/<path:partition>/seek",
        route(POST=groups.seek_partition),
    ),
    path("api/v1/consumer-groups/<path:group>/queues/<path:queue>/seek", route(POST=groups.seek)),
    path("api/v1/consumer-groups/<path:group>/queues/<path:queue>", route(DELETE=groups.delete)),
    path("api/v1/consumer-groups/<path:group>/subscription", route(POST=groups.subscribe)),
    path("api/v1/consumer-groups/<path:group>", route(GET=groups.detail, DELETE=groups.delete)),
    path("api/v1/stats/refresh", route(POST=groups.refresh)),
    # Status, analytics, metrics (section 1.5)
    path("api/v1/status", route(GET=status.status)),
    path("api/v1/status/analytics", route(GET=status.analytics)),
    path("api/v1/status/buffers", route(GET=machine.buffers)),
    path("api/v1/status/queues", route(GET=status.queues)),
    path("api/v1/status/queues/<path:queue>/messages", route(GET=status.messages)),
    path("api/v1/status/queues/<path:queue>", route(GET=status.queue)),
    path("api/v1/analytics/queue-lag", route(GET=status.queue_lag)),
    path("api/v1/analytics/queue-ops", route(GET=status.queue_ops)),
    path("api/v1/analytics/queue-parked-replicas", route(GET=status.parked)),
    path("api/v1/analytics/retention", route(GET=status.retention)),
    path("api/v1/analytics/system-metrics", route(GET=machine.system_metrics)),
    path("api/v1/analytics/worker-metrics", route(GET=machine.worker_metrics)),
    path("api/v1/analytics/postgres-stats", route(GET=machine.postgres_stats)),
    path("metrics/prometheus", machine.prometheus),
]
