"""`ledger verify`: check sums, entries and roll-ups of the ledger; exit code 1 if they differ."""

import dataclasses
from typing import Any

from django.core.management.base import CommandParser

from payments.books import ledger
from registry.management.base import AsyncCommand, add_json, tenant_named

UNSOUND = 1  # exit code


class Command(AsyncCommand):
    help = "Verify the ledger; housekeeping does it every few minutes."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        verify = verbs.add_parser("verify", help="check the ledger; changes nothing, locks nothing")
        verify.add_argument("--tenant", default="", help="of this tenant only")
        add_json(verify)

    async def run(self, *, tenant: str, json: bool, **_: Any) -> None:
        tenant_id = (await tenant_named(tenant)).pk if tenant else None
        proof = await ledger.prove(tenant_id=tenant_id)
        data = {"sound": proof.sound, **dataclasses.asdict(proof)}
        self.report(_sentence(proof), data, as_json=json)
        if not proof.sound:
            raise SystemExit(UNSOUND)


def _sentence(proof: ledger.Proof) -> str:
    if proof.sound:
        return f"Sound: {proof.payments} succeeded payments, {proof.lines} lines, sums zero, roll-ups equal."
    return (
        f"NOT SOUND: of {proof.payments} succeeded payments {proof.missing} lack their three lines, "
        f"{proof.unbalanced} do not add up to zero, {proof.strange} have lines that are not theirs; "
        f"{proof.rollups_off} roll-ups differ from their payments; "
        f"{proof.refunds_off} refunds and {proof.disputes_off} disputes differ from their lines."
    )
