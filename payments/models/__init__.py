"""The tables of payments, a file per concern."""

from payments.models.payments import (
    Attempt,
    DeadLetter,
    Endpoint,
    LedgerEntry,
    LedgerProof,
    Payment,
    PaymentEvent,
    Processor,
    Rollup,
    SandboxBooking,
    Stream,
)

__all__ = [
    "Attempt",
    "DeadLetter",
    "Endpoint",
    "LedgerEntry",
    "LedgerProof",
    "Payment",
    "PaymentEvent",
    "Processor",
    "Rollup",
    "SandboxBooking",
    "Stream",
]
