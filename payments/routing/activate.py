"""Rules put into force exactly as they were rehearsed: compare and set over all of a tenant's processors. See rehearsal.py."""

from decimal import Decimal

from django_async_backend.db.transaction import async_atomic

from payments.errors import PaymentError
from payments.models import Processor
from payments.routing.dry_run import Rule, digest, edited, options_of
from registry.data.loop import sync_twin
from registry.tenants import audit


class RulesChanged(PaymentError):
    """The processors are no longer those that were rehearsed; rehearse again."""

    status = 409


async def activate(*, tenant_id: int, edits: dict[str, str], rules: str, actor: str, reason: str) -> list[str]:
    """Put `edits` into force if the rules are still those whose digest `rules` is; the processors that changed.

    Workers route by them within half a second. Raises RulesChanged (409), Refused (422).
    """
    async with async_atomic():
        found = await _locked(tenant_id)
        if digest(found) != rules:
            raise RulesChanged
        before = {rule.id: rule for rule in found}
        changed = [rule for rule in edited(found, edits) if rule != before[rule.id]]
        for rule in changed:
            mine = Processor.async_objects.filter(tenant_id=tenant_id, pk=rule.id)
            await mine.aupdate(fee=Decimal(rule.fee), enabled=rule.enabled, options=rule.options)
        if changed:
            await audit.record(
                actor=actor,
                action="routing.activate",
                target=f"processors {', '.join(sorted(rule.name for rule in changed))}",
                tenant_id=tenant_id,
                rows=len(changed),
                reason=reason,
                detail={rule.name: _difference(before[rule.id], rule) for rule in changed},
            )
    return sorted(rule.name for rule in changed)


async def _locked(tenant_id: int) -> list[Rule]:
    """The tenant's rules, which nobody else changes until the transaction ends."""
    mine = Processor.async_objects.select_for_update(of=("self",)).select_related("tenant").filter(tenant_id=tenant_id)
    return [
        Rule(
            p.pk, p.name, p.kind, p.url, str(p.fee), p.enabled, options_of(p.options), p.tenant.mode, p.tenant.patience
        )
        async for p in mine.order_by("pk")
    ]


def _difference(before: Rule, after: Rule) -> dict[str, list]:
    fields = {name: [getattr(before, name), getattr(after, name)] for name in ("fee", "enabled")}
    names = before.options.keys() | after.options.keys()
    fields |= {f"options.{name}": [before.options.get(name), after.options.get(name)] for name in sorted(names)}
    return {name: pair for name, pair in fields.items() if pair[0] != pair[1]}


activate_sync = sync_twin(activate)
