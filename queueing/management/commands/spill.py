"""`spill list`, `spill replay` and `spill drop`: quarantined records of the spill."""

from collections.abc import Sequence
from typing import Any

from django.core.management.base import CommandError, CommandParser

from queueing import spill
from registry.management.base import AsyncCommand, add_json


class Command(AsyncCommand):
    help = "List, replay or drop quarantined writes of the spill, which could not be stored."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        add_json(verbs.add_parser("list", help="quarantined writes, with the reason"))
        for verb, what in (("replay", "try to store them once more"), ("drop", "forget them")):
            chosen = verbs.add_parser(verb, help=what)
            chosen.add_argument("id", nargs="*", help="as `spill list` shows them")
            chosen.add_argument("--all", action="store_true", help="every one")

    async def do_list(self, *, json: bool, **_: Any) -> None:
        data = [
            {
                "id": one.id,
                "kind": kind,
                "tenantId": one.record.tenant_id if one.record else None,
                "acceptedAt": one.record.at.isoformat() if one.record else None,
                "setAsideAt": one.at.isoformat(),
                "bytes": len(one.record.data if one.record else one.raw),
                "reason": one.reason,
            }
            for kind, kept in (await found()).items()
            for one in kept
        ]
        lines = [f"{a['id']}  {a['kind']:<8} tenant {a['tenantId']}  {a['setAsideAt']}  {a['reason']}" for a in data]
        self.report("\n".join(lines) or "Nothing is quarantined.", data, as_json=json)

    async def do_replay(self, *, id: Sequence[str], all: bool, **_: Any) -> None:
        chosen = await chosen_of(id, all)
        done = [one for kind, ids in chosen.items() for one in await spill.replay(kind, ids)]
        unreadable = sum(map(len, chosen.values())) - len(done)
        more = f" {unreadable} cannot be read; they can only be dropped." if unreadable else ""
        self.stdout.write(f"{len(done)} will be stored by the next process that drains.{more}")

    async def do_drop(self, *, id: Sequence[str], all: bool, **_: Any) -> None:
        chosen = await chosen_of(id, all)
        dropped = [one for kind, ids in chosen.items() for one in ids if await spill.drop(kind, one)]
        self.stdout.write(f"{len(dropped)} dropped.")


async def found() -> dict[str, list[spill.QuarantinedRecord]]:
    return {kind: await spill.quarantined(kind) for kind in spill.KINDS}


async def chosen_of(ids: Sequence[str], all: bool) -> dict[str, list[str]]:
    """The chosen ids by kind. Raises CommandError for an unknown id, and for neither ids nor --all."""
    if not ids and not all:
        raise CommandError("say which: ids as `spill list` shows them, or --all")
    there = {kind: [one.id for one in kept] for kind, kept in (await found()).items()}
    unknown = set(ids) - {id for kept in there.values() for id in kept}
    if unknown:
        raise CommandError(f"nothing is quarantined as {', '.join(sorted(unknown))}")
    return {kind: [id for id in kept if all or id in ids] for kind, kept in there.items()}
