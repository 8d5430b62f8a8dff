"""The scope that each route of the queue requires, as section 1 of its contract says, without a gap."""

import re

import pytest

from queueing.urls import urlpatterns
from tests.conftest import Api, make_key

QUEUE, GROUP = "/resources/queues/{}", "/consumer-groups/{}"
MESSAGE, LETTER = "/messages/{}/{}", "/dlq/{}"

READ = {
    # 1.2
    "GET /resources/queues", f"GET {QUEUE}", f"GET {QUEUE}/depth", "GET /resources/partitions",
    "GET /resources/namespaces", "GET /resources/tasks", "GET /resources/overview",
    # 1.3
    "GET /messages", f"GET {MESSAGE}", "GET /dlq", "GET /traces/{}/{}", "GET /traces/by-name/{}", "GET /traces/names",
    # 1.4
    "GET /consumer-groups", "GET /consumer-groups/lagging", f"GET {GROUP}",
    # 1.5
    "GET /status", "GET /status/queues", "GET /status/queues/{}", "GET /status/queues/{}/messages",
    "GET /status/analytics", "GET /status/buffers", "GET /analytics/system-metrics", "GET /analytics/worker-metrics",
    "GET /analytics/queue-lag", "GET /analytics/queue-ops", "GET /analytics/queue-parked-replicas",
    "GET /analytics/retention", "GET /analytics/postgres-stats",
}  # fmt: skip
WRITE = {
    # 1.1
    "POST /push", "GET /pop", "GET /pop/queue/{}", "GET /pop/queue/{}/partition/{}", "POST /ack", "POST /ack/batch",
    "POST /transaction", "POST /lease/{}/extend",
    # 1.2 to 1.4
    "POST /configure", f"DELETE {MESSAGE}", "POST /traces", f"POST {GROUP}/subscription",
    f"POST {GROUP}/queues/{{}}/seek", f"POST {GROUP}/queues/{{}}/partitions/{{}}/seek",
}  # fmt: skip
ADMIN = {
    f"DELETE {QUEUE}", "DELETE /queues/{}/clear", f"DELETE {GROUP}", f"DELETE {GROUP}/queues/{{}}",
    "POST /stats/refresh", "GET /system/maintenance", "POST /system/maintenance", "GET /system/maintenance/pop",
    "POST /system/maintenance/pop",
    # 1.6
    "DELETE /dlq", f"POST {LETTER}/replay", f"POST {MESSAGE}/retry", f"POST {MESSAGE}/dlq",
}  # fmt: skip
SCOPES = {"read": ("read",), "write": ("read", "write"), "admin": ("admin",)}


def routes() -> set[str]:
    return {re.sub(r"<[^>]+>", "{}", str(one.pattern)).removeprefix("api/v1") for one in urlpatterns} - {
        "metrics/prometheus"
    }


def test_every_route_has_its_access_level_in_this_test():
    assert {operation.partition(" ")[2] for operation in READ | WRITE | ADMIN} == routes()


@pytest.mark.parametrize(("level", "operations"), [("read", READ), ("write", WRITE), ("admin", ADMIN)])
async def test_a_key_may_do_what_its_scopes_allow_and_nothing_more(server: str, tenant, level: str, operations: set):
    levels = list(SCOPES)
    wrong = []
    for scope, scopes in SCOPES.items():
        enough = levels.index(scope) >= levels.index(level)
        async with Api(server, await make_key(tenant, *scopes)) as api:
            for operation in sorted(operations):
                method, _, path = operation.partition(" ")
                async with api.session.request(method, "/api/v1" + path.replace("{}", "thing"), json={}) as response:
                    if (response.status == 403) is enough or response.status in (401, 405, 500):
                        wrong.append((scope, operation, response.status))

    assert wrong == []


async def test_a_key_that_only_writes_does_not_read(server: str, tenant):
    async with Api(server, await make_key(tenant, "write")) as writer:
        async with writer.get("/api/v1/resources/queues") as looked:
            pass
        async with writer.post("/api/v1/push", json={"items": []}) as pushed:
            pass

    assert (looked.status, pushed.status) == (403, 201)
