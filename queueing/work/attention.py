"""Sources of attention: queues that workers do not keep up with, workers that are missing or silent, chores that fail or do not run."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from queueing.models import SILENT_AFTER, Worker
from queueing.work.entry import CHORE_TIMEOUT
from queueing.work.table import SQL, TABLES, Standing
from registry.data import clock, database
from registry.data.chores import CHORES
from registry.operators.attention import Item, Severity, counted, source
from registry.operators.cells import address_of_list, ago
from registry.templatetags.figures import span

DUE_LATE = timedelta(seconds=60)  # due, and no worker takes it
DUE_STUCK = timedelta(minutes=5)
ACCEPTED_LATE = timedelta(minutes=10)  # not finished since it was accepted
PROVES = {"prove-audit": "audit.proof"}  # chores whose findings are items of their own
GRACE = timedelta(seconds=CHORE_TIMEOUT + 60)  # that a chore may be late: one worker runs them one after the other


# -- Queues ------------------------------------------------------------------------------------------------------


@source("queues")
async def queues(tenant_ids: Sequence[int] | None) -> list[Item]:
    found = {name: await table.standing(tenant_ids) for name, table in TABLES.items()}
    late = [item for name, standing in found.items() if (item := _late(name, standing))]
    if late or tenant_ids is not None:
        return late
    waiting = sum(standing.open for standing in found.values())
    parts = ", ".join(f"{name} {standing.open:,}{_oldest(standing)}" for name, standing in found.items())
    return [Item(severity=Severity.WELL, sentence=f"Queues are served. Waiting: {parts}.", count=waiting)]


def _oldest(standing: Standing) -> str:
    return f" (oldest {span(timedelta(seconds=standing.accepted_for))})" if standing.accepted_for else ""


def _late(name: str, now: Standing) -> Item | None:
    due, accepted = timedelta(seconds=now.due_for or 0), timedelta(seconds=now.accepted_for or 0)
    if due < DUE_LATE and accepted < ACCEPTED_LATE:
        return None
    waiting = now.open - now.later
    said = f"The queue {name}: {counted(waiting)} {'waits' if waiting == 1 else 'wait'}, {now.due:,} of them due now"
    if now.accepted_for:
        said += f"; the oldest was accepted {ago(accepted.total_seconds())} ago"
    if due >= DUE_LATE:
        said += f"; the longest due for {ago(due.total_seconds())}: workers do not keep up"
    return Item(
        severity=Severity.CRITICAL if due >= DUE_STUCK else Severity.WARNING,
        sentence=f"{said}.",
        count=waiting,
        since=clock.now() - (accepted or due),
        action="See the workers",
        admin=address_of_list(Worker),
    )


# -- Workers -----------------------------------------------------------------------------------------------------


@source("workers")
async def workers(tenant_ids: Sequence[int] | None) -> list[Item]:
    if tenant_ids is not None:
        return []
    rows = await reporting()
    items = [*_missing(rows), *_silent(rows)]
    if items:
        return items
    alive, hosts = sum(row[2] for row in rows), {row[1] for row in rows}
    busy, capacity = sum(row[5] for row in rows), sum(row[6] for row in rows)
    said = f"{counted(alive, 'worker')} on {counted(len(hosts), 'host')}: {busy:,} of {capacity:,} rows in progress."
    return [Item(severity=Severity.WELL, sentence=said, count=alive)]


async def reporting() -> list[database.Row]:
    """Workers by queue and host: queue, host, alive, silent, latest report, rows in progress, capacity."""
    return await database.fetch(SQL["workers"], {"silent": SILENT_AFTER.total_seconds()}, prepare=False)


def _missing(rows: Sequence[tuple[Any, ...]]) -> list[Item]:
    alive = {row[0] for row in rows if row[2]}
    missing = [name for name in TABLES if name not in alive]
    if not missing:
        return []
    said = f"No worker is alive for {', '.join(missing)}: what was accepted waits."
    return [_about_workers(Severity.CRITICAL, said, len(missing), None)]


def _silent(rows: Sequence[tuple[Any, ...]]) -> list[Item]:
    """One item per host: a host that is cut off has all of its workers silent."""
    hosts: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for row in rows:
        hosts[row[1]].append(row)
    items = []
    for host, mine in sorted(hosts.items()):
        if not (silent := sum(row[3] for row in mine)):
            continue
        since = max(row[4] for row in mine if row[3])
        whole = not any(row[2] for row in mine)
        who = f"The host {host} is silent, with" if whole else f"On the host {host}"
        is_silent = "" if whole else (" is silent" if silent == 1 else " are silent")
        said = f"{who} {counted(silent, 'worker')}{is_silent}. Others take over what was leased there."
        items.append(_about_workers(Severity.CRITICAL if whole else Severity.WARNING, said, silent, since))
    return items


def _about_workers(severity: Severity, sentence: str, count: int, since: datetime | None) -> Item:
    return Item(
        severity=severity,
        sentence=sentence,
        count=count,
        since=since,
        action="See the workers",
        admin=address_of_list(Worker),
    )


# -- Chores ------------------------------------------------------------------------------------------------------


@source("chores")
async def chores(tenant_ids: Sequence[int] | None) -> list[Item]:
    if tenant_ids is not None:
        return []
    runs = await latest_runs()
    items = [item for name in CHORES if name not in PROVES and (item := _troubled(name, runs))]
    if items:
        return items
    return [
        Item(
            severity=Severity.WELL,
            sentence=f"{counted(len(CHORES), 'chore')}: none failed, none is overdue.",
            count=len(CHORES),
        )
    ]


@source("audit.proof")
async def audit(tenant_ids: Sequence[int] | None) -> list[Item]:
    if tenant_ids is not None:
        return []
    name = "prove-audit"
    runs = await latest_runs()
    run = runs.get(name)
    if run and run[5]:
        return [Item(severity=Severity.CRITICAL, sentence=f"The audit log was changed: {run[5]}.", since=run[1])]
    if item := _troubled(name, runs):
        return [item]
    if not run or not run[2]:
        return [
            Item(
                known=False,
                severity=Severity.NOTICE,
                sentence="The audit log was not verified yet. The first run is within an hour.",
            )
        ]
    return [
        Item(
            severity=Severity.WELL,
            sentence="The audit log: the last verification found every chain whole.",
            since=run[2],
        )
    ]


type Run = tuple[datetime, datetime | None, datetime | None, datetime | None, str, str, datetime]


async def latest_runs() -> dict[str, Run]:
    """By name: started, finished, succeeded, failing since, error, finding, and when the first chore ever ran."""
    return {
        row[0]: (row[1], row[2], row[3], row[4], row[5], row[6], row[7])
        for row in await database.fetch(SQL["chores"], prepare=False)
    }


def _troubled(name: str, runs: dict[str, Run]) -> Item | None:
    """The item of a chore that fails, or has not run for two of its intervals."""
    if is_failing(name, runs):
        _, _, succeeded, since, error, *_ = runs[name]
        age = clock.now() - succeeded if succeeded else None
        last = f"It succeeded last {ago(age.total_seconds())} ago." if age else "It never succeeded."
        return Item(severity=Severity.WARNING, sentence=f"The chore {name} fails: {error}. {last}", since=since)
    if since := overdue_since(name, runs):
        said = f"The chore {name} is overdue: it runs every {ago(CHORES[name].every)}."
        return Item(severity=Severity.WARNING, sentence=said, since=since)
    return None


def is_failing(name: str, runs: dict[str, Run]) -> bool:
    """Whether the latest run of the chore failed."""
    return name in runs and runs[name][3] is not None


def overdue_since(name: str, runs: dict[str, Run]) -> datetime | None:
    """When a chore that has not run for two of its intervals began last; for one that never ran, when the first of all did."""
    first = next(iter(runs.values()))[6] if runs else None
    last = runs[name][0] if name in runs else first
    patience = timedelta(seconds=CHORES[name].every * 2) + GRACE
    return last if last and clock.now() - last > patience else None
