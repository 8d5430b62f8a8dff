"""Query plans of the summary's statement; bench/summary.py runs it in the service's environment."""

import json
import os
import sys
from datetime import datetime

import django
import psycopg

django.setup()

from payments.books import summary  # noqa: E402 settings first


def plan(connection: psycopg.Connection, start: datetime | None, end: datetime | None) -> str:
    spans = summary.spans(start, end)
    bounds = {
        f"{name}_{side}": at for name, span in spans.items() for side, at in zip(("from", "to"), span, strict=True)
    }
    tenant = connection.execute("SELECT id FROM registry_tenant WHERE slug = 'bench'").fetchone()
    explain = "EXPLAIN (ANALYZE, BUFFERS) " + summary.SQL["summary"]
    rows = connection.execute(explain, {"tenant": tenant[0], "currency": "BRL", **bounds}).fetchall()  # type: ignore[index]
    return "\n".join(row[0] for row in rows)


with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
    for name, window in json.loads(sys.argv[1]).items():
        start, end = (datetime.fromisoformat(text) if text else None for text in window)
        plan(connection, start, end)  # warm-up, so that the pages are cached as in a running service
        print(f"\n-- {name}: from {window[0] or 'the beginning'} to {window[1] or 'the end'}")
        print(plan(connection, start, end))
