"""The routes of the message queue's API (queue contract section 1)."""

from django.urls import path

from queueing.api import groups, machine, maintenance, messages, openapi, openapi_resources, plane, resources, status  # noqa: F401 - describe them
from queueing.api.edge import route

urlpatterns = [
    path("api/v1/push", route(POST=plane.push)),
    path("api/v1/pop", route(GET=plane.pop)),
    path("api/v1/pop/queue/<path:queue>/partition/<path:partition>", route(GET=plane.pop)),
    path("api/v1/pop/queue/<path:queue>", route(GET=plane.pop)),
    path("api/v1/ack", route(POST=plane.ack)),
    path("api/v1/ack/batch", route(POST=plane.ack_batch)),
    path("api/v1/transaction", route(POST=plane.transaction)),
    path("api/v1/lease/<str:lease>/extend", route(POST=plane.extend)),
    # Configure and resources (section 1.2)
    path("api/v1/configure", route(POST=resources.configure)),
    path("api/v1/resources/queues", route(GET=resources.queues)),
    path("api/v1/resources/queues/<path:queue>/depth", route(GET=resources.depth)),
    path("api/v1/resources/queues/<path:queue>", route(GET=resources.queue, DELETE=resources.drop)),
    path("api/v1/resources/partitions", route(GET=resources.partitions)),
    path("api/v1/resources/namespaces", route(GET=resources.namespaces)),
    path("api/v1/resources/tasks", route(GET=resources.tasks)),
    path("api/v1/resources/overview", route(GET=resources.overview)),
    path("api/v1/queues/<path:queue>/clear", route(DELETE=resources.clear)),
    # Messages, dead letters, traces (section 1.3)
    path("api/v1/messages", route(GET=messages.browse)),
    path("api/v1/messages/<str:partition>/<path:transaction>/retry", route(POST=messages.retry)),
    path("api/v1/messages/<str:partition>/<path:transaction>/dlq", route(POST=messages.make_dead_letter)),
    path("api/v1/messages/<str:partition>/<path:transaction>", route(GET=messages.detail, DELETE=messages.delete)),
    path("api/v1/dlq", route(GET=messages.list_dead_letters, DELETE=messages.purge)),
    path("api/v1/dlq/<str:dead_letter>/replay", route(POST=messages.replay)),
    path("api/v1/traces", route(POST=messages.trace)),
    path("api/v1/traces/names", route(GET=messages.trace_names)),
    path("api/v1/traces/by-name/<path:name>", route(GET=messages.traces_named)),
    path("api/v1/traces/<str:partition>/<path:transaction>", route(GET=messages.traces_of)),
    # Maintenance (section 1.5)
    path("api/v1/system/maintenance", route(GET=maintenance.get, POST=maintenance.set_push)),
    path("api/v1/system/maintenance/pop", route(GET=maintenance.get, POST=maintenance.set_pop)),
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
