"""Operators' page of what is queued and what is inline: for all tenants or for some, what is in effect now, and why."""

from typing import Any

from django.contrib import admin
from django.db import transaction
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils.safestring import SafeString

from payments.refunds import inline as refunds_inline
from payments.settle import inline
from queueing.models import SILENT_AFTER, Worker
from registry.admin import TenantAdmin
from registry.models import Flag, Tenant
from registry.operators.confirm import Done, Order, Perform, Reasoned, guarded
from registry.operators.lists import pill
from registry.operators.scope import SUPERUSERS, TenantScoped
from registry.tenants import audit

TENANTS_NAMED = 5  # in the list
PAYMENT, REFUND = f"inline.{inline.OPERATION}", f"inline.{refunds_inline.OPERATION}"
QUEUES = {PAYMENT: "payments", REFUND: "refunds"}  # whose workers do it where no web process does


def for_everyone(everyone: bool | None) -> Perform:
    """Set a switch for all tenants at once; one by one, so that the library's own cache hears of it."""

    def perform(page: TenantScoped, order: Order) -> Done:
        rows = list(order.rows)
        with transaction.atomic():
            for flag in rows:
                before, flag.everyone = flag.everyone, everyone
                flag.save()
                audit.record_sync(
                    actor=order.actor,
                    action="switch.everyone",
                    target=f"switch {flag}",
                    reason=order.reason,
                    detail={"everyone": [before, everyone]},
                )
        return Done(rows=len(rows))

    return perform


def for_tenants(name: str, *, inline: bool) -> Perform:
    """Name tenants in a switch, or take them out of it."""

    def perform(page: TenantScoped, order: Order) -> Done:
        tenants = list(order.rows)
        with transaction.atomic():
            flag, _ = Flag.objects.get_or_create(name=name, defaults={"superusers": False})
            (flag.tenants.add if inline else flag.tenants.remove)(*tenants)
            for tenant in tenants:
                audit.record_sync(
                    actor=order.actor,
                    action="switch.inline" if inline else "switch.queued",
                    target=f"switch {flag}",
                    tenant_id=tenant.pk,
                    reason=order.reason,
                )
        return Done(rows=len(tenants))

    return perform


def in_effect(flag: Flag) -> tuple[str, str]:
    """What is done with the operation now, in a word, and why."""
    if flag.name not in QUEUES:
        return "queued", "nothing obeys a switch of this name"
    beating = Worker.objects.filter(heartbeat_at__gte=Now() - SILENT_AFTER)
    workers = beating.filter(queue=QUEUES[flag.name]).count()
    if flag.name == PAYMENT and not workers and beating.filter(queue=inline.NAME).exists():
        return "inline", "fall-back: no worker is alive, the web processes stand in for them"
    if not workers:
        return _without_workers(flag)
    some = "1 worker" if workers == 1 else f"{workers} workers"
    if flag.everyone:
        return "inline", f"switched on for everyone; {some} for what is left over"
    if flag.everyone is None and (named := flag.tenants.count()):
        return "both", f"inline for {_tenants(named)}, else {some}"
    return "queued", f"{some} at work"


def _tenants(number: int) -> str:
    return f"{number} tenant{'' if number == 1 else 's'}"


def _without_workers(flag: Flag) -> tuple[str, str]:
    """Nobody stands in for the workers with refunds, but web processes pay those that they are asked for themselves."""
    if flag.name == REFUND and flag.everyone:
        return "inline", "switched on for everyone; no worker is alive, what is left over waits"
    if flag.name == REFUND and flag.everyone is None and (named := flag.tenants.count()):
        return "both", f"inline for {_tenants(named)}; no worker is alive, the others' wait"
    return "waiting", "no worker is alive; what is accepted waits"


LOOKS = {"queued": ("○", "grey"), "inline": ("●", "green"), "both": ("◐", "blue"), "waiting": ("◑", "amber")}


@admin.register(Flag)
class SwitchAdmin(Reasoned):
    """They concern all tenants: superusers only."""

    tenant_path = ""
    change_roles = act_roles = SUPERUSERS
    list_display = ["name", "setting", "effect", "why"]
    change_fields = ("name", "everyone", "tenants", "note", "effect", "why")
    readonly_fields = ("name", "effect", "why")
    autocomplete_fields = ["tenants"]
    actions = [
        guarded(
            "switch.inline",
            label="Inline for everyone",
            warning=(
                "Within a second all tenants' requests wait for their outcome. What a web process has no room for is "
                "queued as before."
            ),
            expects={},
            perform=for_everyone(True),
        ),
        guarded(
            "switch.queued",
            label="Queued for everyone",
            warning="Within a second requests are answered when their payment is durable, also those of tenants named here.",
            expects={},
            perform=for_everyone(False),
        ),
        guarded(
            "switch.tenants",
            label="Inline for the tenants named only",
            warning="Within a second each tenant's own switch counts again.",
            expects={},
            perform=for_everyone(None),
        ),
    ]

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field and db_field.name == "everyone":
            field.help_text = "Yes or no goes before the tenants named below; unknown leaves it to them."
        return field

    @admin.display(description="switched")
    def setting(self, flag: Flag) -> str:
        if flag.everyone is not None:
            return "inline for everyone" if flag.everyone else "queued for everyone"
        named = [tenant.slug for tenant in flag.tenants.order_by("slug")[: TENANTS_NAMED + 1]]
        more = ", …" if len(named) > TENANTS_NAMED else ""
        return f"inline for {', '.join(named[:TENANTS_NAMED])}{more}" if named else "queued"

    @admin.display(description="in effect now")
    def effect(self, flag: Flag) -> SafeString:
        word, _ = in_effect(flag)
        return pill(*LOOKS[word], word)

    @admin.display(description="why")
    def why(self, flag: Flag) -> str:
        return in_effect(flag)[1]


for operation, flag, work in (("payment", PAYMENT, "send their payments"), ("refund", REFUND, "pay their refunds")):
    TenantAdmin.actions += [
        guarded(
            f"tenant.{operation}_inline",
            label=f"Inline: the web processes {work}",
            warning="Within a second their requests wait for the outcome. A switch for everyone goes before this.",
            expects={"status": Tenant.Status.ACTIVE},
            perform=for_tenants(flag, inline=True),
        ),
        guarded(
            f"tenant.{operation}_queued",
            label=f"Queued: workers {work}",
            warning="Within a second their requests are answered as soon as they are durable.",
            expects={"status": Tenant.Status.ACTIVE},
            perform=for_tenants(flag, inline=False),
        ),
    ]
