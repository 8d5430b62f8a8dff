"""Plans made while the tables were empty read only the named rows once the tables have grown."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from psycopg import AsyncConnection

from queueing.broker.catalog import SQL
from registry.data import database

GROUP, PARTITIONS = 1, 1000  # all of them due
WANTED = 700  # the one that is named

MAKE = f"""
INSERT INTO queueing_queue (tenant_id, name) VALUES (%(tenant)s, 'plans');
INSERT INTO queueing_group (id, tenant_id, queue_id, name, mode)
SELECT {GROUP}, tenant_id, id, 'g', 'all' FROM queueing_queue WHERE name = 'plans';
INSERT INTO queueing_partition (id, tenant_id, queue_id, name, last_seq, idle)
SELECT n, tenant_id, id, n::text, 1, false FROM queueing_queue, generate_series(1, {PARTITIONS}) n WHERE name = 'plans';
INSERT INTO queueing_consumer (tenant_id, partition_id, group_id, due_at)
SELECT tenant_id, id, {GROUP}, now() FROM queueing_partition;
INSERT INTO queueing_message (tenant_id, partition_id, seq, id, transaction_id, payload, created_at)
SELECT tenant_id, id, 1, gen_random_uuid(), name, '1', now() FROM queueing_partition;
"""
READ = "SELECT sum(pg_stat_get_xact_tuples_returned(indexrelid))::bigint FROM pg_index WHERE indrelid = ANY(%s::regclass[])"
TABLES = ["queueing_consumer", "queueing_partition", "queueing_message"]
# What an ANALYZE would have left about the table of queues, per page. The order of joins depends on it.
COUNT = "UPDATE pg_class SET reltuples = %s, relpages = 1 WHERE oid = 'queueing_queue'::regclass"


class Broker:
    """The queue's functions, on one connection, for one partition or none."""

    def __init__(self, conn: AsyncConnection, tenant_id: int) -> None:
        self.conn, self.tenant_id = conn, tenant_id
        self.lease = uuid4()

    async def read_by(self, name: str, partitions: list[int]) -> int:
        """Entries of indexes that it read."""
        [[before]] = await database.rows(self.conn, READ, [TABLES])
        await database.rows(self.conn, SQL[name], getattr(self, f"_{name}")(partitions))
        [[after]] = await database.rows(self.conn, READ, [TABLES])
        return after - before

    def _claim(self, partitions: list[int]) -> dict:
        one = [1 for _ in partitions]
        same = dict.fromkeys(("source_sets", "priorities", "counts", "slot_sets", "places", "requests", "sizes"), one)
        mine = {"tenants": [self.tenant_id for _ in one], "groups": [GROUP for _ in one]}
        return {**same, **mine, "partitions": partitions, "leases": [self.lease for _ in one]}

    def _complete(self, partitions: list[int]) -> dict:
        names = ["g" for _ in partitions]
        owners, transactions = [1 for _ in partitions], [str(n) for n in partitions]
        mine = {"tenants": [self.tenant_id for _ in names], "leases": [self.lease for _ in names]}
        return {**mine, "partitions": partitions, "names": names, "owners": owners, "transactions": transactions}

    def _reschedule(self, partitions: list[int]) -> dict:
        return {
            "tenants": [self.tenant_id for _ in partitions],
            "partitions": partitions,
            "groups": [GROUP for _ in partitions],
        }

    def _push(self, partitions: list[int]) -> dict:
        count = range(len(partitions))
        return {
            "tenants": [self.tenant_id for _ in count],
            "partitions": partitions,
            "slots": [n + 1 for n in count],
            "ids": [uuid4() for _ in count],
            "transactions": ["new" for _ in count],
            "payloads": [b"1" for _ in count],
            **dict.fromkeys(("keys", "traces", "producers")),
            "counted": False,
        }


class _Undone(Exception):
    pass


@pytest.fixture(params=[1, 100], ids=["few queues", "many queues"])
async def broker(mq, request) -> AsyncIterator[Broker]:
    """Whose plans were made when there was nothing; by now there are a thousand partitions that wait. All is undone."""
    try:
        async with database.transaction() as conn:
            broker = Broker(conn, mq.tenant_id)
            await database.rows(conn, f"TRUNCATE {', '.join(TABLES)}")
            await database.rows(conn, "DELETE FROM pg_statistic WHERE starelid = ANY(%s::regclass[])", [TABLES])
            await database.rows(conn, COUNT, [request.param])
            await database.rows(conn, "DISCARD PLANS")
            await database.rows(conn, "SET LOCAL plan_cache_mode = force_generic_plan")
            for name in ("claim", "complete", "reschedule", "push"):
                await broker.read_by(name, [])
            for statement in MAKE.strip().split(";\n"):
                await database.rows(conn, statement.rstrip(";"), {"tenant": mq.tenant_id})
            yield broker
            raise _Undone
    except _Undone:
        pass


async def test_a_pop_by_name_finds_its_partition_among_many_due_ones(broker):
    read = {}

    for name in ("claim", "complete", "reschedule", "push"):
        read[name] = await broker.read_by(name, [WANTED])

    [[cursor, due]] = await database.rows(
        broker.conn, "SELECT cursor, due_at IS NOT NULL FROM queueing_consumer WHERE partition_id = %s", [WANTED]
    )
    assert (cursor, due) == (1, True)  # they did what they are for: read, done, at rest, and woken
    assert all(entries < 50 for entries in read.values()), read
