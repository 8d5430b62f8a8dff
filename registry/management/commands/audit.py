"""`audit verify`: verify the chains of the audit trail; exit code 1 when one is invalid."""

import argparse
import dataclasses
from typing import Any

from django.core.management.base import CommandError, CommandParser

from registry.management.base import AsyncCommand, add_json, tenant_named
from registry.tenants import audit_chain
from registry.tenants.audit_chain import Noted, Verdict

BROKEN = 1  # exit code


class Command(AsyncCommand):
    help = "Verify that the audit trail is unchanged."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        verify = verbs.add_parser("verify", help="follow the chains from their first entry; changes nothing")
        verify.add_argument("--tenant", default="", help="this tenant's chain only")
        verify.add_argument(
            "--noted", type=_noted, metavar="POSITION:DIGEST", help="an earlier end of the tenant's chain, as printed"
        )
        add_json(verify)

    async def run(self, *, tenant: str, noted: Noted | None, json: bool, **_: Any) -> None:
        if noted and not tenant:
            raise CommandError("--noted requires --tenant: each tenant has a chain of its own")
        verdicts = (
            [await audit_chain.verify((await tenant_named(tenant)).pk, noted=noted)]
            if tenant
            else await audit_chain.verify_all()
        )
        names = await audit_chain.names(verdicts)
        data = [
            {"tenant": names.get(v.chain, str(v.chain)), "sound": v.sound, **dataclasses.asdict(v)} for v in verdicts
        ]
        lines = [_sentence(names.get(v.chain, f"tenant {v.chain}"), v) for v in verdicts]
        self.report("\n".join(lines) or "Sound: there are no entries.", data, as_json=json)
        if not all(verdict.sound for verdict in verdicts):
            raise SystemExit(BROKEN)


def _sentence(name: str, verdict: Verdict) -> str:
    if verdict.sound:
        return f"Sound: {name}, {verdict.entries} entries, head {verdict.entries}:{verdict.head}"
    where = f"position {verdict.position}" if verdict.position is not None else "the trail"
    entry = f", entry {verdict.entry}" if verdict.entry is not None else ""
    return f"BROKEN: {name}, at {where}{entry}: {verdict.fault}. The {verdict.entries} before hold."


def _noted(text: str) -> Noted:
    try:
        return Noted.parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"wants POSITION:DIGEST as `audit verify` prints it, got {text!r}") from None
