"""`reconcile run`: compare the books of a tenant's processors with ours, for any window. `reconcile list`: open differences."""

import argparse
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from django.core.management.base import CommandError, CommandParser
from django.utils.dateparse import parse_datetime

from payments.jobs.reconcile import NAME, ReconcileInput
from payments.models import Difference
from payments.money import decimal_text
from payments.reconciliation.comparison import SETTLED_AFTER
from queueing.jobs import queries, waiting
from queueing.jobs.requests import of_service
from queueing.models import JobStatus
from registry.data import clock
from registry.management.base import AsyncCommand, add_json, tenant_named

DIFFERENT = 1  # exit code
SHOWN = 1000  # differences of one answer


class Command(AsyncCommand):
    help = "Compare processors' books with ours; housekeeping does it every hour and every day."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        run = verbs.add_parser("run", help="compare a window; exit code 1 where something differs or was not answered")
        run.add_argument("tenant")
        run.add_argument("--processor", default="", help="this one only")
        run.add_argument("--since", type=_moment, help="of requestedAt, such as 2030-01-31T12:00:00Z; a day ago")
        run.add_argument("--until", type=_moment, help="not included; two seconds ago")
        add_json(run)
        found = verbs.add_parser("list", help="differences that are open")
        found.add_argument("tenant")
        add_json(found)

    async def do_run(
        self, *, tenant: str, processor: str, since: datetime | None, until: datetime | None, json: bool, **_: Any
    ) -> None:
        owner = await tenant_named(tenant)
        until = until or clock.now() - SETTLED_AFTER
        asked = ReconcileInput(from_=since or until - timedelta(days=1), to=until, processor=processor or None)
        [job] = await waiting.finish_shown([of_service(NAME, asked, tenant_id=owner.pk)], label="comparing")
        if job.status != JobStatus.SUCCEEDED:
            raise CommandError(job.error or f"the comparison was {job.status}")
        data = msgspec.json.decode(await queries.result(owner.pk, job.uuid))
        self.report("\n".join(map(_sentence, data)), data, as_json=json)
        if any(one["differences"] or one["unanswered"] or not one["finished"] for one in data):
            raise SystemExit(DIFFERENT)

    async def do_list(self, *, tenant: str, json: bool, **_: Any) -> None:
        owner = await tenant_named(tenant)
        open_ones = Difference.async_objects.filter(tenant=owner, resolution="").select_related("processor")[:SHOWN]
        data = [
            {
                "id": one.pk,
                "kind": one.kind,
                "processor": one.processor.name,
                "about": one.key,
                "ours": one.our_amount,
                "theirs": one.their_amount,
                "currency": one.our_currency or one.their_currency,
                "requestedAt": one.requested_at.isoformat(),
            }
            async for one in open_ones
        ]
        lines = [
            f"{d['kind']:<14} {d['processor']:<20} {d['about']}  "
            f"ours {_money(d['ours'], d['currency'])}, theirs {_money(d['theirs'], d['currency'])}"
            for d in data
        ]
        self.report("\n".join(lines) or f"No difference of {tenant} is open.", data, as_json=json)


def _money(units: int | None, currency: str) -> str:
    return "–" if units is None else f"{decimal_text(units, currency)} {currency}"


def _sentence(found: dict[str, Any]) -> str:
    way = "both ways" if found["bothWays"] else "a sample of ours, one by one"
    ended = "" if found["finished"] else " It was interrupted; the next run continues."
    return (
        f"{found['processor']}: {found['payments']} payments of ours, {found['records']} records of theirs ({way}); "
        f"{found['differences']} differ, {found['unanswered']} without an answer.{ended}"
    )


def _moment(text: str) -> datetime:
    try:
        found = parse_datetime(text)
    except ValueError:
        found = None
    if found is None:
        raise argparse.ArgumentTypeError(f"wants a time in ISO 8601, got {text!r}")
    return found if found.tzinfo else found.replace(tzinfo=UTC)
