"""Set a switch (a row of Flag) for all tenants or for some of them, and record it."""

from asgiref.sync import sync_to_async
from django.db import transaction

from registry.models import Flag
from registry.operators.confirm import Confirmed, Perform
from registry.operators.decide import Done
from registry.tenants import audit


def for_everyone(everyone: bool | None) -> Perform:
    """Switch on or off for all tenants; None leaves it to the tenants named in the switch."""

    def change(confirmed: Confirmed) -> Done:
        rows = confirmed.action.rows
        with transaction.atomic():
            for flag in rows:
                before, flag.everyone = flag.everyone, everyone
                flag.save()  # and no update of the set: waffle clears its cache when a row is saved
                audit.record_sync(
                    actor=confirmed.actor,
                    action="switch.everyone",
                    target=f"switch {flag}",
                    reason=confirmed.reason,
                    detail={"everyone": [before, everyone]},
                )
        return Done(rows=len(rows))

    return sync_to_async(change)


def for_tenants(name: str, *, inline: bool) -> Perform:
    """Name the tenants in the switch `name`, or take them out of it."""

    def change(confirmed: Confirmed) -> Done:
        tenants = confirmed.action.rows
        with transaction.atomic():
            flag, _ = Flag.objects.get_or_create(name=name, defaults={"superusers": False})
            (flag.tenants.add if inline else flag.tenants.remove)(*tenants)
            for tenant in tenants:
                audit.record_sync(
                    actor=confirmed.actor,
                    action="switch.inline" if inline else "switch.queued",
                    target=f"switch {flag}",
                    tenant_id=tenant.pk,
                    reason=confirmed.reason,
                )
        return Done(rows=len(tenants))

    return sync_to_async(change)
