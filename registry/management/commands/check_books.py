"""`check_books`: recompute the books from the first event and the first ledger line; exit code 1 if anything differs."""

import time
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError, CommandParser
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from registry.management.base import AsyncCommand, add_json
from registry.models import Tenant
from registry.tenants import books
from registry.tenants.books import SERVICE, BookFindings, BookSlice, Place

DIFFERENT, FAULT = 1, 2  # exit codes


class Command(AsyncCommand):
    help = "Recompute balances, roll-ups, summaries, refunds, event numbers and the audit trail; housekeeping does it every night."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tenant", nargs="?", help="of this tenant only; all tenants and the service's audit trail")
        add_json(parser)

    async def run(self, *, tenant: str | None, json: bool, **_: Any) -> None:
        try:
            names = await books.owners(tenant)
        except Tenant.DoesNotExist:
            raise CommandError(f"there is no tenant {tenant!r}; `tenant list` shows all", returncode=FAULT) from None
        started = time.monotonic()
        with _Bars(list(names)) as bars:
            findings = await books.check(names, bars.seen)
        seconds = time.monotonic() - started
        self.report(_text(names, findings, seconds), _data(names, findings, seconds), as_json=json)
        if findings.count:
            raise SystemExit(DIFFERENT)


class _Bars:
    """A progress bar on stderr for each part, over all tenants."""

    def __init__(self, tenant_ids: list[int]) -> None:
        columns = (
            TextColumn("{task.description:<14}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[rows]:>12,}"),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._shares: dict[Place, float] = {}
        places = books.places(tenant_ids)
        self._bars: dict[str, TaskID] = {
            part: self._progress.add_task(part, total=sum(one.part == part for one in places), rows=0, start=False)
            for part in dict.fromkeys(one.part for one in places)
        }

    def __enter__(self) -> "_Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def seen(self, place: Place, found: BookSlice) -> None:
        bar = self._bars[place.part]
        task = self._progress.tasks[bar]
        if not task.started:
            self._progress.start_task(bar)
        advance = found.share - self._shares.get(place, 0.0)
        self._shares[place] = found.share
        self._progress.update(bar, advance=advance, rows=task.fields["rows"] + found.rows)


def _text(names: dict[int, str], findings: BookFindings, seconds: float) -> str:
    whose = ", ".join(names.values()) if SERVICE not in names else "all tenants"
    counted = ", ".join(f"{part} {rows:,}" for part, rows in findings.rows.items())
    verdict = {0: "No difference", 1: "1 difference"}.get(findings.count, f"{findings.count:,} differences")
    lines = [f"{names[place.tenant_id]}: {one.sentence}." for place, one in findings.named]
    if findings.count > len(lines):
        lines.append(f"… and {findings.count - len(lines)} more.")
    return "\n".join([*lines, f"{verdict}, {whose}, in {seconds:.1f} s. Compared: {counted}."])


def _data(names: dict[int, str], findings: BookFindings, seconds: float) -> dict[str, Any]:
    return {
        "sound": not findings.count,
        "differences": [
            {"tenant": names[place.tenant_id], "part": place.part, **asdict(one)} for place, one in findings.named
        ],
        "total": findings.count,
        "rows": findings.rows,
        "seconds": round(seconds, 1),
    }
