"""Statements of the message queue read only the rows they name, with any planner statistics.

Its functions have a test of their own: test_plans.py.
"""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from queueing.broker import catalog
from registry.data import database
from tests.plans import TENANT, Asked, Read, measure_twice, table_of, uuid_of

APP = Path(catalog.__file__).parents[1]
SQL = {  # those of work and outbound are measured with the tables of payments: tests/payments/test_plans.py
    path.stem: database.statements(path)
    for package in ("broker", "console")
    for path in sorted((APP / package / "sql").glob("*.sql"))
    if path.stem != "functions"
}

TABLES = [
    f"queueing_{name}"
    for name in ("queue", "partition", "group", "consumer", "message", "deadmessage", "trace", "traffic")
]

# One queue with 10,000 partitions of one message each, and 10,000 others with neither; one group reads, 100 of its leases are alive.
SEED = """
SELECT setval(pg_get_serial_sequence(t, 'id'), 1000000) FROM unnest(ARRAY['queueing_queue', 'queueing_partition', 'queueing_group',
    'queueing_deadmessage']) t;
INSERT INTO registry_tenant (id, slug, name, currency, status, mode, open, settings)
VALUES (%(tenant)s, 'plans', '', 'BRL', 'active', 'sandbox', false, '{}')
"""
ROWS = """
INSERT INTO queueing_queue (id, tenant_id, name) SELECT n, %(tenant)s, 'q' || n FROM generate_series(1, %(rows)s) n WHERE {part};
INSERT INTO queueing_group (id, tenant_id, queue_id, name, mode)
SELECT n, %(tenant)s, n, 'g', 'all' FROM generate_series(1, %(rows)s) n WHERE {part};
INSERT INTO queueing_partition (id, tenant_id, queue_id, name, last_seq, idle)
SELECT n, %(tenant)s, 1, 'p' || n, 1, false FROM generate_series(1, %(rows)s) n WHERE {part};
INSERT INTO queueing_consumer (tenant_id, partition_id, group_id, due_at, lease_id, delivered, cursor)
SELECT %(tenant)s, n, 1, now() + CASE WHEN n <= 100 THEN interval '1 minute' ELSE interval '-1 minute' END,
    CASE WHEN n <= 100 THEN md5('l' || n)::uuid END, 1, 0
FROM generate_series(1, %(rows)s) n WHERE {part};
INSERT INTO queueing_message (tenant_id, partition_id, seq, id, transaction_id, payload, created_at)
SELECT %(tenant)s, n, 1, md5('m' || n)::uuid, 't' || n, '1', now() FROM generate_series(1, %(rows)s) n WHERE {part};
INSERT INTO queueing_deadmessage (id, tenant_id, queue_id, partition_id, group_id, group_name, partition_name, seq, message_id,
    transaction_id, payload, error, attempts, created_at)
SELECT n, %(tenant)s, 1, n, 1, 'g', 'p' || n, 1, md5('m' || n)::uuid, 't' || n, '1', '', 1, now()
FROM generate_series(1, %(rows)s) n WHERE {part};
INSERT INTO queueing_trace (id, tenant_id, partition_id, transaction_id, names, data)
SELECT md5('tr' || n)::uuid, %(tenant)s, n, 't' || n, '[]', '1' FROM generate_series(1, %(rows)s) n WHERE {part};
INSERT INTO queueing_traffic (tenant_id, queue_id, minute)
SELECT %(tenant)s, 1, '2026-01-01Z'::timestamptz + n * interval '1 minute' FROM generate_series(1, %(rows)s) n WHERE {part}
""".replace("{part}", "(n %% %(step)s = 0) = %(first)s")

LEASE = uuid_of("l5")
T = {"tenant": TENANT}
ONE = {
    **T,
    "queue": 1,
    "partition": 5,
    "transaction": "t5",
    "seq": 1,
    "group": 1,
    "lease": LEASE,
    "name": "q1",
    "id": 5,
}
THREE = {**T, "partitions": [5, 6, 7], "names": ["g", "g", "g"], "leases": [LEASE, uuid_of("l6"), uuid_of("l7")],
    "groups": [1, 1, 1], "seqs": [1, 1, 1], "transactions": ["t5", "t6", "t7"]}  # fmt: skip
NOW = datetime.now(UTC)

ASKED: dict[str, tuple] = {
    "broker/find_queue": (ONE, 5),
    "broker/lock_queue": (ONE, 5),
    "broker/find_partitions": ({**ONE, "names": ["p5", "p6", "p20000"]}, 10),
    "broker/add_partitions": ({**ONE, "names": ["p5", "new"]}, 20),
    "broker/name_partitions": (THREE, 20),
    "broker/find_group": ({**ONE, "name": "g"}, 5),
    "broker/next_due": ({**T, "groups": [1], "missed": 1.0}, 200),
    "broker/existing_groups": ({**T, "groups": [1, 2]}, 5),
    "broker/lock_consumers": (THREE, 20),
    "broker/dead_beyond_cursor": (THREE, 20),
    "broker/leases_of": (THREE, 20),
    "broker/message_numbers": (THREE, 10),
    "broker/add_dead_letters": ({**THREE, "errors": [""] * 3, "attempts": [1] * 3, "dropped": [False] * 3}, 20),
    "broker/update_consumers": ({**THREE, "cursors": [1] * 3, "buried": [0] * 3, "attempts": [0] * 3, "releases": [True] * 3, "waits": [0.0] * 3}, 10),
    "broker/extend": ({**ONE, "seconds": 5}, 5),
    "broker/lease_known": (ONE, 5),
    "broker/find_message": (ONE, 5),
    "broker/lock_poisoned": (ONE, 10),
    "broker/postpone": ({**ONE, "partitions": [5]}, 5),
    "broker/release_lease": (ONE, 5),
    "broker/lock_live_leases": ({**T, "leases": [LEASE, uuid_of("l6")]}, 5),
    "dead_letters/dead_letter": (ONE, 10),
    "dead_letters/oldest_of_message": (ONE, 5),
    "dead_letters/lock_open": (ONE, 5),
    "dead_letters/end": (ONE, 5),
    "dead_letters/lock_behind": ({**ONE, "group": ""}, 10),
    "dead_letters/mark_buried": ({**ONE, "groups": [1]}, 5),
    "broker/lock_partition": (ONE, 5),
    "manage/clear_consumers": (ONE, 10),
    "manage/clear_messages": ({**ONE, "through": 1, "limit": 10}, 10),
    "manage/mark_idle": (ONE, 10),
    "manage/add_removed": ({**ONE, "count": 1}, 5),
    "manage/message_to_delete": (ONE, 5),
    "manage/delete_message": (ONE, 5),
    "manage/make_due": (THREE, 10),
    "messages/message": (ONE, 10),
    "messages/groups_of_message": (ONE, 10),
    "console/partition": (ONE, 10),
    "console/places": (ONE, 10),
    "console/messages": ({**ONE, "bytes": 10, "after": 0, "through": 1, "skip_after": 0, "skip_through": 0, "limit": 10}, 10),
    "console/message": (ONE, 10),
    "console/dead_of_message": (ONE, 5),
    "retention/slowest_cursor": (ONE, 5),
    "retention/end_of_slice": ({**ONE, "after": 0, "through": 1, "limit": 10, "age": 60}, 5),
    "retention/count_behind": ({**ONE, "through": 1}, 5),
    "retention/lock_behind": ({**ONE, "through": 1}, 5),
    "retention/remove": ({**ONE, "after": 0, "through": 1}, 10),
    "retention/skip_removed": ({**ONE, "through": 1, "groups": [1]}, 5),
    "retention/remove_slice": ({**ONE, "limit": 10}, 10),
    "traces/traces_of": (ONE, 5),
}  # fmt: skip

STATEMENTS = {name: Asked(SQL[name.partition("/")[0]][name.partition("/")[2]], *rest) for name, rest in ASKED.items()}

OWN_TEST = "a function, in test_plans.py"
ALL = "shows or adds up what a tenant or a queue has: it reads what it shows"
CHORE = "a chore that goes through everything, a slice at a time"
OPERATOR = "an operator's command, for all of a queue or group"
INSERT = "adds a row, looks nothing up"
PART = "a part of the statement of an export"
HOME = "read for the operators' home, from a bounded number of rows"

NOT_HOT: dict[str, str] = {
    **dict.fromkeys(("broker/push", "broker/claim", "broker/complete", "broker/reschedule"), OWN_TEST),
    **dict.fromkeys(("broker/add_queue", "broker/add_group", "maintenance/set_maintenance", "traces/add_trace", "traffic/add"), INSERT),
    **dict.fromkeys(("broker/queues_about", "broker/size", "maintenance/maintenance", "dead_letters/dead_letters", "dead_letters/how_many",
        "messages/messages", "messages/modes", "traces/traces_named", "traces/traces_named_count", "traces/trace_names"), ALL),
    **{f"{file}/{name}": ALL for file in ("browse", "statistics") for name in SQL[file]},
    **dict.fromkeys(("console/partitions", "console/count_partitions", "console/options", "console/open_among"), ALL),
    **{f"{file}/{name}": CHORE for file in ("rotation",) for name in SQL[file]},
    **{f"export/{name}": PART for name in SQL["export"]},
    **{f"books/{name}": CHORE for name in SQL["books"]},
    **{f"attention_broker/{name}": HOME for name in SQL["attention_broker"]},
    **dict.fromkeys((f"retention/{name}" for name in ("aged", "completed", "waited", "dropped", "remove_dead_letters", "remove_partition",
        "empty_partitions", "traffic_queues", "remove_traffic", "remove_traces", "tenants", "forget_ended")), CHORE),
    **dict.fromkeys(("broker/lock_partitions", "broker/set_cursors", "dead_letters/purge", *(f"manage/{name}" for name in ("configure",
        "waiting_consumers", "partitions_of", "drop_partitions", "drop_consumers", "drop_groups", "drop_queue")),
        *(f"groups/{name}" for name in SQL["groups"])), OPERATOR),
}  # fmt: skip


@pytest.fixture(scope="module")
def read(_database: None) -> dict[str, dict[str, Read]]:
    found = measure_twice(TABLES, SEED, ROWS, STATEMENTS)
    for name, figures in found.items():
        print(f"\n{name}\n{table_of(figures)}")
    return found


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_reads_what_it_names(read: dict[str, dict[str, Read]], name: str) -> None:
    assert {made: more for made, figures in read.items() if (more := STATEMENTS[name].excess(figures[name]))} == {}


def test_every_statement_has_a_measured_plan_or_a_reason_why_it_is_not_hot() -> None:
    every = {f"{file}/{name}" for file, named in SQL.items() for name in named}

    assert every == STATEMENTS.keys() | NOT_HOT.keys()
    assert not STATEMENTS.keys() & NOT_HOT.keys()
