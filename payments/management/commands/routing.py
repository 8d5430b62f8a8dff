"""`routing rehearse`: a dry run of edited routing rules, and their activation."""

from typing import Any

from django.core.management.base import CommandError, CommandParser

from payments.money import decimal_text
from payments.routing import activate as activation
from payments.routing import dry_run
from payments.routing.dry_run import WAITS, DryRun, Side
from registry.management.base import AsyncCommand, actor, add_json, tenant_named


class Command(AsyncCommand):
    help = "Dry run of routing rules on the latest payments, without sending anything."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        rehearse = verbs.add_parser("rehearse", help="where the latest payments would go under edited rules")
        rehearse.add_argument("tenant")
        rehearse.add_argument("--last", type=int, default=1000, help=f"payments, at most {dry_run.MOST}")
        rehearse.add_argument(
            "--set", action="extend", nargs="+", default=[], metavar="NAME.FIELD=VALUE",
            help="such as default.fee=0.03, fallback.enabled=false, default.options.delay=300; repeatable",
        )  # fmt: skip
        rehearse.add_argument("--activate", action="store_true", help="activate the edits after the dry run")
        rehearse.add_argument("--reason", default="", help="the reason, for the audit trail; required by --activate")
        add_json(rehearse)

    async def run(
        self, *, tenant: str, last: int, set: list[str], activate: bool, reason: str, json: bool, **_: Any
    ) -> None:
        if activate and not reason.strip():
            raise CommandError("--activate wants a --reason")
        owner = await tenant_named(tenant)
        found = await dry_run.run(tenant_id=owner.pk, edits=_edits(set), last=last)
        changed: list[str] = []
        if activate:
            changed = await activation.activate(
                tenant_id=owner.pk, edits=found.edits, rules=found.rules, actor=actor(), reason=reason.strip()
            )
        self.report(_words(found, changed, activate), data_of(found) | {"activated": changed}, as_json=json)


def _edits(pairs: list[str]) -> dict[str, str]:
    edits = {}
    for pair in pairs:
        path, found, value = pair.partition("=")
        if not found or "." not in path:
            raise CommandError(f"--set wants NAME.FIELD=VALUE, got {pair!r}")
        edits[path] = value
    return edits


def data_of(found: DryRun) -> dict[str, Any]:
    """As programs read it: fees as decimal text by currency, shares from 0 to 1, None where nothing is known."""
    return {
        "payments": found.payments,
        "moved": found.moved,
        **{name: _side(getattr(found, name)) for name in ("actual", "before", "after")},
        "rates": found.rates,
        "examples": [
            {
                "correlationId": str(one.correlation_id),
                "amount": decimal_text(one.amount, one.currency),
                "currency": one.currency,
                "before": one.before or None,
                "after": one.after or None,
                "reason": one.reason,
            }
            for one in found.examples
        ],
        "rules": found.rules,
        "edits": found.edits,
    }


def _side(side: Side) -> dict[str, Any]:
    counts = {name: count for name, count in sorted(side.counts.items()) if name != WAITS}
    fees = {currency: decimal_text(units, currency) for currency, units in sorted(side.fees.items())}
    return {"payments": counts, "waiting": side.counts[WAITS], "fees": fees, "expectedSuccess": side.success}


def _words(found: DryRun, changed: list[str], activated: bool) -> str:
    lines = [f"{found.payments} payments, {found.moved} would go elsewhere."]
    for title, side in (("really", found.actual), ("today's rules", found.before), ("edited rules", found.after)):
        said = _side(side)
        counts = ", ".join(f"{name} {count}" for name, count in said["payments"].items()) or "none"
        fees = ", ".join(f"{fee} {currency}" for currency, fee in said["fees"].items()) or "0"
        success = "unknown" if side.success is None else f"{side.success:.2%}"
        waiting = f", {said['waiting']} wait" if said["waiting"] else ""
        lines.append(f"{title:<14} {counts}{waiting}; fees {fees}; expected success {success}")
    lines += [
        f"  {one.correlation_id}  {one.before or 'waits'} → {one.after or 'waits'}: {one.reason}"
        for one in found.examples
    ]
    if activated:
        lines.append(f"In force now: {', '.join(changed)}." if changed else "Nothing to activate: no rule changes.")
    return "\n".join(lines)
