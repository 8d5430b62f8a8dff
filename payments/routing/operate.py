"""Guarded actions on processors and on the circuit breakers of their endpoints."""

from django.db.models.functions import Now

from payments.models import Endpoint
from registry.operators.rows import guarded

Breaker = Endpoint.Breaker

DISABLE = guarded(
    "processor.disable",
    label="Disable: send nothing new",
    warning="No new payments are sent to it; uncertain payments are still looked up there. Other processors take over.",
    expects={"enabled": True},
    sets={"enabled": False},
)
ENABLE = guarded(
    "processor.enable",
    label="Enable",
    warning="Payments may be sent there again, by fee and health.",
    expects={"enabled": False},
    sets={"enabled": True},
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
