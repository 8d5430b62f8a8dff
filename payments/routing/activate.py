"""Activate the rules of a dry run: compare and set over all processors of a tenant."""

from decimal import Decimal

from django_async_backend.db.transaction import async_atomic

from payments.errors import PaymentError
from payments.models import Processor
from payments.routing.accounts import check_enabled
from payments.routing.dry_run import Rule, digest, edited, options_of
from registry.data.loop import sync_twin
from registry.tenants import audit


class RulesChanged(PaymentError):
    """The processors have changed since the dry run; run it again."""

    status = 409


async def activate(*, tenant_id: int, edits: dict[str, str], rules: str, actor: str, reason: str) -> list[str]:
    """Apply `edits` if the digest of the current rules is `rules`; the names of the changed processors.

    Workers use them within half a second. Raises RulesChanged (409), Refused (422).
    """
    async with async_atomic():
        processors = await _locked(tenant_id)
        current = [_rule(processor) for processor in processors.values()]
        if digest(current) != rules:
            raise RulesChanged
        before = {rule.id: rule for rule in current}
        changed = [rule for rule in edited(current, edits) if rule != before[rule.id]]
        for rule in changed:
            if rule.enabled and not before[rule.id].enabled:
                check_enabled(processors[rule.id], processors[rule.id].tenant)
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


async def _locked(tenant_id: int) -> dict[int, Processor]:
    """The tenant's processors by id, locked until the transaction ends."""
    mine = Processor.async_objects.select_for_update(of=("self",)).select_related("tenant").filter(tenant_id=tenant_id)
    return {processor.pk: processor async for processor in mine.order_by("pk")}


def _rule(p: Processor) -> Rule:
    return Rule(
        p.pk, p.name, p.kind, p.url, str(p.fee), p.enabled, options_of(p.options), p.tenant.mode, p.tenant.patience
    )


def _difference(before: Rule, after: Rule) -> dict[str, list]:
    fields = {name: [getattr(before, name), getattr(after, name)] for name in ("fee", "enabled")}
    names = before.options.keys() | after.options.keys()
    fields |= {f"options.{name}": [before.options.get(name), after.options.get(name)] for name in sorted(names)}
    return {name: pair for name, pair in fields.items() if pair[0] != pair[1]}


activate_sync = sync_twin(activate)
