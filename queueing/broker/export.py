"""Export and erasure of a tenant's data in the queue's tables: what is exported, and what is personal."""

from pathlib import Path

from queueing.broker import crypto
from registry.data import database
from registry.tenants import erasure, export
from registry.tenants.export import OWN, Row, Table

SQL = database.statements(Path(__file__).parent / "sql" / "export.sql")


def _decrypted(row: Row) -> Row:
    """Raises crypto.Undecipherable."""
    if row["key_id"] is None or row["queue"] is None:
        return row
    place = (row["tenant_id"], row["queue"], row["partition"], row["transaction_id"])
    return row | {"payload": crypto.decrypt(row["payload"], key_id=row["key_id"], place=place), "key_id": None}


_MESSAGE = Table(where=OWN, joins=SQL["joins"], extra=SQL["names"], content=("payload",), unseal=_decrypted)

export.TABLES |= {
    "queueing.Message": _MESSAGE,
    "queueing.DeadMessage": _MESSAGE,
    "queueing.Trace": Table(content=("data",)),
}
export.LEFT_OUT["queueing.Worker"] = "processes of the service, of no tenant"
export.LEFT_OUT["queueing.ChoreRun"] = "periodic tasks of the service, of no tenant"

_NAMES = "names that the tenant's programs chose for queues and readers"
_IDS = "ids that the tenant's programs chose; what they name is blanked"

erasure.PERSONAL |= {
    "queueing.Message": {"payload": "'null'::bytea", "key_id": "NULL"},
    "queueing.DeadMessage": {"payload": "'null'::bytea", "key_id": "NULL", "error": "''"},
    "queueing.Trace": {"data": "'null'::bytea", "names": "'[]'"},
}
erasure.KEPT |= {
    **dict.fromkeys(
        ("queueing.Queue.name", "queueing.Queue.namespace", "queueing.Queue.task", "queueing.Partition.name",
         "queueing.Group.name", "queueing.DeadMessage.group_name", "queueing.DeadMessage.partition_name",
         "queueing.Trace.group_name"), _NAMES,
    ),
    **dict.fromkeys(
        ("queueing.Message.transaction_id", "queueing.DeadMessage.transaction_id", "queueing.Trace.transaction_id"), _IDS
    ),
}  # fmt: skip
