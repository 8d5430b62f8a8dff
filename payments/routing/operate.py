"""Guarded actions on processors and on the circuit breakers of their endpoints."""

from django.db.models.functions import Now
from django.http import HttpResponse

from payments.models import Endpoint, Processor
from payments.routing import accounts
from queueing.templatetags.queues import address
from registry.edge.pages import PageRequest
from registry.edge.viewer import Visitor
from registry.operators.confirm import Action, confirm, recorded
from registry.operators.decide import Done
from registry.operators.rows import guarded

Breaker = Endpoint.Breaker

OFF = "No new payments are sent to it; uncertain payments are still looked up there. Other processors take over."
ON = "Payments may be sent there again, by fee and health."

DISABLE = guarded(
    "processor.disable",
    label="Disable: send nothing new",
    warning=OFF,
    expects={"enabled": True},
    sets={"enabled": False},
)


def _check_enabled(processor: Processor) -> None:
    """Raises Refused, which names the processor: the selection may have several."""
    try:
        accounts.check_enabled(processor, processor.tenant)
    except accounts.Refused as error:
        raise accounts.Refused(f"{processor.name} of {processor.tenant.slug}: {error.detail}") from None


ENABLE = guarded(
    "processor.enable",
    label="Enable",
    warning=ON,
    expects={"enabled": False},
    sets={"enabled": True},
    check=_check_enabled,
)
CLOSE_BREAKER = guarded(
    "endpoint.close",
    label="Close the breaker: send again",
    warning="Payments are sent there at once. If it still fails, the breaker opens by itself.",
    expects={"breaker__in": [Breaker.OPEN, Breaker.HALF_OPEN]},
    sets={"breaker": Breaker.CLOSED, "failures": 0, "breaker_changed_at": Now()},
)
OPEN_BREAKER = guarded(
    "endpoint.open",
    label="Open the breaker: send nothing",
    warning=(
        "Payments of all tenants go to other processors or wait. Single probes go on, and a good answer closes the breaker "
        "again; to keep payments away for longer, disable the processors."
    ),
    expects={"breaker__in": [Breaker.CLOSED, Breaker.HALF_OPEN]},
    sets={"breaker": Breaker.OPEN, "breaker_changed_at": Now()},
)


async def confirm_switch(
    request: PageRequest, visitor: Visitor, processor: Processor, *, enabled: bool
) -> HttpResponse:
    """Switch a merchant's processor on or off, on the console's confirmation page."""
    expected = Processor.async_objects.filter(tenant_id=visitor.tenant.pk, pk=processor.pk, enabled=not enabled)

    async def change() -> Done:
        if enabled:
            accounts.check_enabled(processor, visitor.tenant)
        rows = await expected.aupdate(enabled=enabled)
        return Done(rows=rows, lost=1 - rows)

    action = Action(
        name="processor.enable" if enabled else "processor.disable",
        label="Switch on" if enabled else "Switch off",
        warning=ON if enabled else OFF,
        perform=recorded(change, tenant_id=visitor.tenant.pk),
        count=await expected.acount(),
        noun="processor",
        target=f"processor {processor.name}",
        back=address("processor", processor.name, tenant=visitor.tenant.slug),
        fields=[("do", "enable" if enabled else "disable")],
    )
    return await confirm(request, visitor, action)
