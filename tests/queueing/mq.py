"""A program that pushes, pops and acks over HTTP, and looks at the queue's rows that the answers do not show."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection

from registry.data import database
from tests.conftest import Api

type Json = dict[str, Any]

_number = itertools.count(1)


def fresh_name(prefix: str = "q") -> str:
    """A queue's name that no other test uses."""
    return f"{prefix}{next(_number)}"


class Mq:
    """One tenant's program."""

    def __init__(self, api: Api, tenant_id: int) -> None:
        self.api, self.tenant_id = api, tenant_id

    async def call(self, method: str, path: str, *, status: int | None = None, **options: Any) -> Any:
        async with self.api.session.request(method, path, **options) as response:
            body = await response.json() if response.content_type.endswith("json") else None
            assert status is None or response.status == status, (response.status, body)
            return body

    async def push(self, queue: str, *payloads: Any, partition: str | None = None) -> list[Json]:
        return await self.push_items(
            [
                {"queue": queue, "payload": payload, **({"partition": partition} if partition else {})}
                for payload in payloads
            ]
        )

    async def push_items(self, items: list[Json]) -> list[Json]:
        return await self.call("POST", "/api/v1/push", json={"items": items}, status=201)

    async def pop(self, queue: str = "", partition: str = "", **query: Any) -> Json | None:
        """The answer's body; None for 204."""
        path = "/api/v1/pop" + (f"/queue/{queue}" if queue else "") + (f"/partition/{partition}" if partition else "")
        params = {name: str(value).lower() if value is True else str(value) for name, value in query.items()}
        async with self.api.get(path, params=params) as response:
            if response.status == 204:
                return None
            assert response.status == 200, (response.status, await response.text())
            return await response.json()

    async def data(self, queue: str = "", partition: str = "", **query: Any) -> list[Any]:
        """What is in the messages of one pop."""
        return payloads(await self.pop(queue, partition, **query))

    async def ack(self, message: Json, status: str = "completed", **fields: Any) -> Json:
        [verdict] = await self.call("POST", "/api/v1/ack", json={**ack_of(message, status), **fields}, status=200)
        return verdict

    async def ack_all(
        self,
        messages: Iterable[Json],
        statuses: Iterable[str] = itertools.repeat("completed"),
        group: str | None = None,
    ) -> list[Json]:
        acks = [ack_of(m, s) for m, s in zip(messages, statuses, strict=False)]
        for one in acks:
            one.pop("consumerGroup")
        group = group or next((m["consumerGroup"] for m in messages), None)
        body = {"acknowledgments": acks, **({"consumerGroup": group} if group else {})}
        return await self.call("POST", "/api/v1/ack/batch", json=body, status=200)

    async def transact(self, *operations: Json, leases: Iterable[str] = ()) -> Json:
        body = {"operations": operations, "requiredLeases": list(leases)}
        return await self.call("POST", "/api/v1/transaction", json=body, status=200)

    # -- What the answers do not show ---------------------------------------------------------------------

    async def sql(self, sql: str, *params: Any) -> list[tuple]:
        return await database.fetch(sql, params)

    async def configure(self, queue: str, **options: Any) -> None:
        """Make the queue and set its columns, as an administrator's configure does."""
        insert = "INSERT INTO queueing_queue (tenant_id, name, namespace, task)"
        await self.sql(
            f"{insert} VALUES (%s, %s::text, split_part(%s, '.', 1), split_part(%s, '.', 2)) ON CONFLICT DO NOTHING",
            self.tenant_id,
            queue,
            queue,
            queue,
        )
        columns = ", ".join(f"{name} = %s" for name in options)
        if options:
            await self.sql(
                f"UPDATE queueing_queue SET {columns} WHERE tenant_id = %s AND name = %s",
                *options.values(),
                self.tenant_id,
                queue,
            )

    async def lapse(self, lease: str) -> None:
        """The reader with this lease has been silent for too long."""
        await self.sql(
            "UPDATE queueing_consumer SET due_at = clock_timestamp() - interval '1 millisecond' WHERE lease_id = %s",
            lease,
        )

    async def wake_retries(self, queue: str) -> None:
        """The wait before the next try is over."""
        await self.sql(
            "UPDATE queueing_consumer c SET due_at = now() FROM queueing_partition p JOIN queueing_queue q"
            " ON q.id = p.queue_id WHERE p.id = c.partition_id AND q.tenant_id = %s AND q.name = %s"
            " AND c.lease_id IS NULL AND c.due_at > now()",
            self.tenant_id,
            queue,
        )

    async def age(self, queue: str, seconds: float) -> None:
        """All that happened to the queue's messages so far happened that much earlier."""
        where = (
            "FROM queueing_partition p JOIN queueing_queue q ON q.id = p.queue_id"
            " WHERE q.tenant_id = %s AND q.name = %s AND p.id"
        )
        which = (float(seconds), self.tenant_id, queue)
        earlier = "- %s * interval '1 second'"
        await self.sql(
            f"UPDATE queueing_message m SET created_at = m.created_at {earlier} {where} = m.partition_id", *which
        )
        await self.sql(
            f"UPDATE queueing_consumer c SET due_at = c.due_at {earlier} {where} = c.partition_id"
            " AND c.due_at > '-infinity'",
            *which,
        )
        await self.sql(f"UPDATE queueing_partition o SET last_at = o.last_at {earlier} {where} = o.id", *which)

    async def dead(self, queue: str, group: str = "__QUEUE_MODE__") -> list[tuple[Any, str]]:
        """Payload and error of the queue's dead letters, in order."""
        rows = await self.sql(
            "SELECT convert_from(d.payload, 'utf8'), d.error FROM queueing_deadmessage d JOIN queueing_queue q"
            " ON q.id = d.queue_id WHERE q.tenant_id = %s AND q.name = %s AND d.group_name = %s ORDER BY d.seq",
            self.tenant_id,
            queue,
            group,
        )
        return [(payload, error) for payload, error in rows]

    async def consumers(self, queue: str) -> list[Json]:
        """The groups' places in the queue's partitions; `due` is None where nothing waits."""
        rows = await self.sql(
            "SELECT p.name, g.name, c.cursor, c.delivered, p.last_seq, c.lease_id, c.due_at::text, c.attempt, p.idle"
            " FROM queueing_consumer c JOIN queueing_partition p ON p.id = c.partition_id"
            " JOIN queueing_group g ON g.id = c.group_id JOIN queueing_queue q ON q.id = p.queue_id"
            " WHERE q.tenant_id = %s AND q.name = %s ORDER BY p.name, g.name",
            self.tenant_id,
            queue,
        )
        names = ("partition", "group", "cursor", "delivered", "last", "lease", "due", "attempt", "idle")
        return [dict(zip(names, row, strict=True)) for row in rows]

    async def at_rest(self, queue: str) -> bool:
        """Whether every group has read all, and every partition will wake them."""
        rows = await self.consumers(queue)
        return all(r["cursor"] == r["last"] and r["due"] is None and r["lease"] is None and r["idle"] for r in rows)


def ack_of(message: Json, status: str = "completed") -> Json:
    return {
        "transactionId": message["transactionId"],
        "partitionId": message["partitionId"],
        "leaseId": message["leaseId"],
        "consumerGroup": message["consumerGroup"],
        "status": status,
    }


def payloads(popped: Json | None) -> list[Any]:
    return [message["data"] for message in popped["messages"]] if popped else []


@asynccontextmanager
async def holding(sql: str, *params: Any) -> AsyncIterator[AsyncConnection]:
    """A transaction that has run `sql` and stays open, as that of a process which is paused at that point."""
    async with database.transaction() as conn:
        await database.rows(conn, sql, params)
        yield conn


async def blocked(many: int = 1) -> bool:
    """Whether so many sessions of this database wait for a lock."""
    rows = await database.fetch(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return rows[0][0] >= many


async def all_of[T](*work: Any) -> list[T]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in work]
    return [task.result() for task in tasks]
