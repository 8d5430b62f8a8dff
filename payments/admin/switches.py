"""Operators' page of the switches between inline and queued: their setting, what is in effect now, and why."""

from typing import Any

from django.contrib import admin
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils.safestring import SafeString

from payments.refunds import operate as refunds_operate
from payments.settle import inline, operate
from queueing.models import SILENT_AFTER, Worker
from registry.admin.tenants import TenantAdmin
from registry.models import Flag
from registry.operators.cells import pill
from registry.operators.reasoned import Reasoned
from registry.operators.scope import SUPERUSERS
from registry.operators.sections import ROUTE

TENANTS_NAMED = 5  # in the list
PAYMENT, REFUND = operate.SWITCH, refunds_operate.SWITCH
QUEUES = {PAYMENT: "payments", REFUND: "refunds"}  # whose workers do what the web processes leave


def in_effect(flag: Flag) -> tuple[str, str]:
    """How the operation runs now, in a word, and why."""
    if flag.name not in QUEUES:
        return "queued", "no operation uses a switch of this name"
    beating = Worker.objects.filter(heartbeat_at__gte=Now() - SILENT_AFTER)
    workers = beating.filter(queue=QUEUES[flag.name]).count()
    if flag.name == PAYMENT and not workers and beating.filter(queue=inline.NAME).exists():
        return "inline", "fall-back: no worker is alive, the web processes do their work"
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
    """Web processes do not replace missing workers for refunds, but pay the refunds that they accept inline."""
    if flag.name == REFUND and flag.everyone:
        return "inline", "switched on for everyone; no worker is alive, what is left over waits"
    if flag.name == REFUND and flag.everyone is None and (named := flag.tenants.count()):
        return "both", f"inline for {_tenants(named)}; no worker is alive, the others' wait"
    return "waiting", "no worker is alive; what is accepted waits"


LOOKS = {"queued": ("○", "grey"), "inline": ("●", "green"), "both": ("◐", "blue"), "waiting": ("◑", "amber")}


@admin.register(Flag)
class SwitchAdmin(Reasoned):
    """Superusers only: a switch concerns all tenants."""

    section, place, purpose = ROUTE, 3, "Whether requests wait for the outcome, or workers do the work."
    tenant_path = ""
    change_roles = act_roles = SUPERUSERS
    list_display = ["name", "setting", "effect", "why"]
    change_fields = ("name", "everyone", "tenants", "note", "effect", "why")
    readonly_fields = ("name", "effect", "why")
    autocomplete_fields = ["tenants"]
    actions = [operate.INLINE_FOR_EVERYONE, operate.QUEUED_FOR_EVERYONE, operate.INLINE_FOR_SOME]

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field and db_field.name == "everyone":
            field.help_text = "Yes and no apply to all tenants; unknown applies the switch to the tenants named below."
        return field

    @admin.display(description="setting")
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


TenantAdmin.actions = [
    *TenantAdmin.actions,
    operate.INLINE,
    operate.QUEUED,
    refunds_operate.INLINE,
    refunds_operate.QUEUED,
]
