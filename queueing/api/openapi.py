"""The message queue's API in the OpenAPI document: every route, its query parameters, body and responses."""

from typing import Any

import msgspec

from queueing.api import groups, plane, status
from registry.edge.api import api
from registry.edge.parameters import Query

_PROBLEMS = {
    400: "Invalid request; `error` and `detail` name the fault",
    401: "No valid key",
    403: "The key lacks the scope",
    404: "No such thing here",
    413: "Body above the limit",
    422: "A query parameter is not acceptable",
    429: "Rate limit",
    503: "The database is unavailable; Retry-After says when to try again",
}
_VARIABLE = {"type": "string", "minLength": 1}
_TAGS = {  # of an operation by the beginning of its path; "queue" for all others
    "/api/v1/consumer-groups": "consumer-groups",
    "/api/v1/dlq": "dead-letters",
    "/api/v1/status": "queue-status",
    "/api/v1/analytics": "queue-status",
    "/api/v1/stats": "queue-status",
    "/api/v1/configure": "queues",
    "/api/v1/resources": "queues",
    "/api/v1/queues": "queues",
    "/api/v1/messages": "queues",
    "/api/v1/traces": "queues",
    "/api/v1/system": "queues",
}
_ALWAYS = (400, 401, 403, 404, 413, 422, 429, 503)


def describe(
    method: str,
    path: str,
    summary: str,
    *,
    query: Query | None = None,
    body: type[msgspec.Struct] | None = None,
    optional: bool = False,
    good: dict[int, str] | None = None,
) -> None:
    """Put a route into the document. `path` has its variables in braces; `optional`: the body may be left out."""
    variables = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    operation: dict[str, Any] = {
        "tags": [next((tag for start, tag in _TAGS.items() if path.startswith(start)), "queue")],
        "operationId": f"{method.lower()}_{path.strip('/').replace('/', '_').translate(_PLAIN)}",
        "summary": summary,
        "parameters": [
            *({"name": n, "in": "path", "required": True, "schema": _VARIABLE} for n in variables),
            *(query.describe() if query else []),
        ],
        "responses": {
            **{
                str(status): {"description": text, **({"content": {"application/json": {}}} if status != 204 else {})}
                for status, text in (good or {200: "Done"}).items()
            },
            **{
                str(status): {"description": _PROBLEMS[status], "content": {"application/problem+json": {}}}
                for status in _ALWAYS
            },
        },
    }
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body.__name__}"}
        operation["requestBody"] = {"required": not optional, "content": {"application/json": {"schema": schema}}}
    api.describe(path, method, operation, *([body] if body else []))


_PLAIN = str.maketrans({"{": "", "}": "", "-": "_"})


# -- Messages (contract section 1.1) ----------------------------------------------------------------------------

_POPPED = {200: "Messages under one lease", 204: "Nothing is due"}

describe("POST", "/api/v1/push", "Push messages", body=plane.PushBody, good={201: "One verdict per item, in order"})
describe(
    "GET", "/api/v1/pop", "Pop from the queues of a namespace or task", good=_POPPED,
    query=plane.POP_ANY,
)  # fmt: skip
describe("GET", "/api/v1/pop/queue/{queue}", "Pop from a queue", query=plane.POP_QUEUE, good=_POPPED)
describe(
    "GET",
    "/api/v1/pop/queue/{queue}/partition/{partition}",
    "Pop from a partition",
    query=plane.POP_PARTITION,
    good=_POPPED,
)
describe("POST", "/api/v1/ack", "Ack one message", body=plane.AckBody, good={200: "An array of one verdict"})
describe(
    "POST", "/api/v1/ack/batch", "Ack several messages", body=plane.AckBatchBody,
    good={200: "One verdict per ack, in order"},
)  # fmt: skip
describe(
    "POST", "/api/v1/transaction", "Push and ack together or not at all", body=plane.TransactionBody,
    good={200: "success, and a result per item and ack; or success false, and why nothing was done"},
)  # fmt: skip
describe(
    "POST", "/api/v1/lease/{lease}/extend", "Keep a lease for longer", body=plane.ExtendBody, optional=True,
    good={200: "An array of one verdict"},
)  # fmt: skip


# -- Consumer groups (section 1.4) --------------------------------------------------------------------------------

_GROUP = "/api/v1/consumer-groups/{group}"

describe("GET", "/api/v1/consumer-groups", "The lag of every group in every queue")
describe(
    "GET", "/api/v1/consumer-groups/lagging", "Groups whose oldest message has waited for too long",
    query=groups.LAGGING,
)  # fmt: skip
describe("GET", _GROUP, "How far a group has read, partition by partition", query=groups.DETAIL)
describe("DELETE", _GROUP, "Delete a group (scope admin)", query=groups.DELETE)
describe("DELETE", f"{_GROUP}/queues/{{queue}}", "Delete a group from one queue (scope admin)", query=groups.DELETE)
describe("POST", f"{_GROUP}/subscription", "Set the start of a group's subscription", body=groups.SubscriptionBody)
describe("POST", f"{_GROUP}/queues/{{queue}}/seek", "Move a group to a time or to the end", body=groups.SeekBody)
describe(
    "POST", f"{_GROUP}/queues/{{queue}}/partitions/{{partition}}/seek",
    "The same in one partition; to its end without a body", body=groups.SeekBody, optional=True,
)  # fmt: skip
describe("POST", "/api/v1/stats/refresh", "Write what this process has counted now (scope admin)")


# -- Status, analytics, metrics (section 1.5) ----------------------------------------------------------------------

describe("GET", "/api/v1/status", "Throughput over time; messages, leases and dead letters now", query=status.SERIES)
describe("GET", "/api/v1/status/queues", "A page of queues with their figures", query=status.QUEUES)
describe("GET", "/api/v1/status/queues/{queue}", "One queue with its partitions and traffic", query=status.QUEUE)
describe(
    "GET", "/api/v1/status/queues/{queue}/messages", "A queue's latest messages, without payloads",
    query=status.MESSAGES,
)  # fmt: skip
describe(
    "GET", "/api/v1/status/analytics", "Throughput by minute, hour or day",
    query=status.ANALYTICS,
)  # fmt: skip
describe("GET", "/api/v1/status/buffers", "What waits for the database in this process")
describe("GET", "/api/v1/analytics/queue-lag", "How long messages waited, queue by queue", query=status.SERIES)
describe("GET", "/api/v1/analytics/queue-ops", "Traffic by queue", query=status.SERIES)
describe("GET", "/api/v1/analytics/queue-parked-replicas", "Long polls that wait in this process", query=status.ABOUT)
describe("GET", "/api/v1/analytics/retention", "How long messages are kept, queue by queue", query=status.ABOUT)
describe("GET", "/api/v1/analytics/system-metrics", "The process that responds")
describe("GET", "/api/v1/analytics/worker-metrics", "The workers that are alive")
describe("GET", "/api/v1/analytics/postgres-stats", "PostgreSQL's own counters")
api.describe(
    "/metrics/prometheus",
    "get",
    {
        "tags": ["service"],
        "operationId": "service_metrics_prometheus",
        "summary": "Metrics under the names that the queue's dashboards know; with a key, also of its tenant's queues",
        "security": [],
        "responses": {
            "200": {"description": "The metrics", "content": {"text/plain": {}}},
            "401": {"description": _PROBLEMS[401], "content": {"application/problem+json": {}}},
        },
    },
)


api.add_examples(__file__)
