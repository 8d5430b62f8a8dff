"""Export of a tenant: all its rows as lines of JSON, table by table, in one snapshot.

Every model with a tenant is exported unless LEFT_OUT gives a reason. Apps add to TABLES the tables without a tenant column and
the columns that must not be exported.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.apps import apps
from django.db import models
from psycopg import AsyncConnection

from registry.data import database
from registry.models import ApiKey, AuditHead, AuditLink, Tenant

SQL = database.statements(Path(__file__).parent / "sql" / "export.sql")

APPS = ("registry", "queueing", "payments")  # apps whose tables may belong to a tenant
ROWS = 200  # per read: rows may contain whole messages
LARGE = 64 * 1024  # characters of a row that takes long
OWN = "t.tenant_id = %(tenant)s"

type Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """The tenant's rows of a table `t`, and the columns to export."""

    where: str = OWN
    joins: str = ""
    extra: str = ""  # arguments of jsonb_build_object: values from joined tables
    columns: tuple[str, ...] = ()  # only these; empty: all
    hidden: tuple[str, ...] = ()  # digests, sealed secrets
    content: tuple[str, ...] = ()  # bytes sent by clients: exported as text, or else as {"base64": …}
    unseal: Callable[[Row], Row] | None = None  # for --decrypt: decrypts the row's content


# By the model's label, "payments.Payment".
TABLES: dict[str, Table] = {
    Tenant._meta.label: Table(where="t.id = %(tenant)s"),
    ApiKey._meta.label: Table(hidden=("digest",)),
    AuditLink._meta.label: Table(where="t.chain = %(tenant)s"),
    AuditHead._meta.label: Table(where="t.chain = %(tenant)s"),
    "auth.User": Table(
        where=SQL["members"],
        columns=("id", "username", "first_name", "last_name", "email", "is_active", "date_joined", "last_login"),
    ),
}
LEFT_OUT: dict[str, str] = {
    "registry.Alert": "alerts of the service and its hosts",
    "registry.AlertMessage": "messages to the operators",
    "registry.AlertSilence": "decisions of the operators",
    "registry.AlertWatch": "processes of the service",
    "registry.BookCheck": "checks of all tenants' books together",
    "registry.Flag": "the service's own switches",
    "registry.Flag_groups": "the service's own switches",
    "registry.Flag_users": "the service's own switches",
    "registry.Host": "hosts of the service",
    "registry.Lease": "processes of the service",
}


@dataclass(frozen=True, slots=True)
class ExportedTable:
    """A table that is exported."""

    label: str
    model: type[models.Model]
    table: Table


def sources() -> Iterator[ExportedTable]:
    """The exported tables in the order of the apps, the tenant first."""
    for app in (*APPS, "auth"):
        for model in apps.get_app_config(app).get_models(include_auto_created=True):
            label = model._meta.label
            if label not in LEFT_OUT and (label in TABLES or has_tenant(model)):
                yield ExportedTable(label, model, TABLES.get(label, Table()))


def has_tenant(model: type[models.Model]) -> bool:
    return any(field.name == "tenant" and field.related_model is Tenant for field in model._meta.concrete_fields)


async def export(tenant_id: int, *, decrypt: bool = False) -> AsyncIterator[tuple[str, list[str]]]:
    """Export the tenant's rows in one snapshot: pages of (table, lines of JSON). Raises what `unseal` raises."""
    async with database.transaction() as conn:
        await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        await conn.execute("SET LOCAL statement_timeout = 0")
        await conn.execute("SET LOCAL idle_in_transaction_session_timeout = 0")  # the reader may be slow
        for source in sources():
            async for rows in _rows(conn, source, tenant_id, decrypt):
                yield source.label, rows


def tagged(table: str, lines: Sequence[str]) -> Iterator[str]:
    """Lines that name their table, for output without a member per table."""
    for line in lines:
        yield f'{{"table": "{table}", "row": {line}}}\n'


def untagged(line: str) -> tuple[str, str]:
    """The table that such a line names, and the row."""
    table, _, row = line.removeprefix('{"table": "').partition('", "row": ')
    return table, row.removesuffix("\n").removesuffix("}")


async def _rows(
    conn: AsyncConnection, source: ExportedTable, tenant_id: int, decrypt: bool
) -> AsyncIterator[list[str]]:
    async with conn.cursor(name="takeout") as cursor:
        await cursor.execute(_query(source), {"tenant": tenant_id})
        while rows := await cursor.fetchmany(ROWS):
            lines = []
            for (row,) in rows:
                lines.append(_readable(source.table, row, decrypt))
                if len(row) > LARGE:
                    await asyncio.sleep(0)  # the loop may have other work
            yield lines


def _query(source: ExportedTable) -> str:
    table = source.table
    order = ", ".join(f"t.{field.column}" for field in source.model._meta.pk_fields)
    return SQL["rows"].format(
        row=_row(source), table=source.model._meta.db_table, joins=table.joins, where=table.where, order=order
    )


def _row(source: ExportedTable) -> str:
    """SQL of the row as JSON: plain numbers, times in ISO 8601, bytes in hexadecimal."""
    table = source.table
    if table.columns:
        pairs = ", ".join(f"'{column}', t.{column}" for column in table.columns)
        return f"jsonb_build_object({pairs})"
    hidden = ", ".join(f"'{column}'" for column in sorted(hidden_columns(source)))
    row = f"to_jsonb(t) - ARRAY[{hidden}]::text[]"
    return f"{row} || jsonb_build_object({table.extra})" if table.extra else row


def hidden_columns(source: ExportedTable) -> set[str]:
    """Columns that are not exported. Bytes are secrets or digests unless the table declares them as content."""
    binary = {str(f.column) for f in source.model._meta.concrete_fields if isinstance(f, models.BinaryField)}
    return (binary | set(source.table.hidden)) - set(source.table.content)


def _readable(table: Table, text: str, decrypt: bool) -> str:
    """The JSON of a row as PostgreSQL writes it, with client content as text instead of hexadecimal."""
    if not table.content:
        return text
    row = json.loads(text)
    for column in table.content:
        if row[column] is not None:
            row[column] = bytes.fromhex(row[column].removeprefix("\\x"))
    if decrypt and table.unseal:
        row = table.unseal(row)
    for column in table.content:
        if isinstance(row[column], bytes):
            row[column] = _written(row[column])
    return json.dumps(row, ensure_ascii=False)


def _written(content: bytes) -> Any:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}
