"""Queues, messages, dead letters, traces and maintenance in the OpenAPI document."""

from queueing.api import maintenance, messages, resources
from queueing.api.openapi import describe

# -- Configure and resources (contract section 1.2) ----------------------------------------------------------------

describe("POST", "/api/v1/configure", "Make a queue or set its options", body=resources.ConfigureBody)
describe("GET", "/api/v1/resources/queues", "Queues and how many messages are in them", query=resources.LIST)
describe("GET", "/api/v1/resources/queues/{queue}", "A queue, partition by partition")
describe("DELETE", "/api/v1/resources/queues/{queue}", "Drop a queue and all that is in it (scope admin)")
describe("GET", "/api/v1/resources/queues/{queue}/depth", "What a group has still to read", query=resources.DEPTH)
describe("DELETE", "/api/v1/queues/{queue}/clear", "Delete a queue's messages (scope admin)", query=resources.CLEAR)
describe("GET", "/api/v1/resources/partitions", "Partitions and how many messages are in them", query=resources.LIST)
describe("GET", "/api/v1/resources/namespaces", "Namespaces and their queues")
describe("GET", "/api/v1/resources/tasks", "Tasks and their queues")
describe("GET", "/api/v1/resources/overview", "Totals of all queues of the tenant")

# -- Messages, dead letters, traces (section 1.3) ------------------------------------------------------------------

_MESSAGE = "/api/v1/messages/{partition}/{transaction}"
describe(
    "GET", "/api/v1/messages", "Messages, newest first, by default of the last hour",
    query=messages.BROWSE,
)  # fmt: skip
describe("GET", _MESSAGE, "A message with its payload and its state per group")
describe("DELETE", _MESSAGE, "Delete a message")
describe("POST", f"{_MESSAGE}/retry", "Replay the dead letter of a message, once (scope admin)")
describe(
    "POST",
    f"{_MESSAGE}/dlq",
    "Make a message a dead letter (scope admin)",
    body=messages.DeadBody,
    optional=True,
    query=messages.MAKE_DEAD_LETTER,
)
describe(
    "GET", "/api/v1/dlq", "Dead letters with their payloads, latest first, and the total",
    query=messages.DEAD_LETTERS,
)  # fmt: skip
describe(
    "DELETE",
    "/api/v1/dlq",
    "Purge a queue's dead letters (scope admin)",
    query=messages.PURGE,
)
describe("POST", "/api/v1/dlq/{dead_letter}/replay", "Push a dead letter again, once (scope admin)")
describe("POST", "/api/v1/traces", "Write a trace", body=messages.TraceBody, good={201: "Its id"})
describe("GET", "/api/v1/traces/names", "Names of traces", query=messages.TRACE_NAMES)
describe("GET", "/api/v1/traces/by-name/{name}", "Traces of one name, latest first", query=messages.TRACES_NAMED)
describe("GET", "/api/v1/traces/{partition}/{transaction}", "Traces of a message")

# -- Maintenance (section 1.5) -------------------------------------------------------------------------------------

for _path, _what in (("maintenance", "pushes"), ("maintenance/pop", "pops")):
    _address = f"/api/v1/system/{_path}"
    describe("GET", _address, "Whether the tenant is in maintenance (scope admin)")
    describe(
        "POST",
        _address,
        f"Stop the tenant's {_what}, or let them go on (scope admin)",
        body=maintenance.MaintenanceBody,
    )
