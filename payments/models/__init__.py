"""The tables of payments, one file per subject."""

from payments.models.billing import Invitation, Plan, SignUp, Subscription
from payments.models.books import LedgerProof, Rollup
from payments.models.inbound import InboundEvent, InboundPoll
from payments.models.payments import (
    Attempt,
    DeadLetter,
    Endpoint,
    LedgerEntry,
    Payment,
    PaymentEvent,
    Processor,
    Stream,
)
from payments.models.reconciliation import Difference, Reconciliation
from payments.models.refunds import Dispute, Refund, SandboxRefund
from payments.models.sandbox import SandboxBooking
from payments.models.statistics import AttemptRollup

__all__ = [
    "Attempt",
    "AttemptRollup",
    "DeadLetter",
    "Difference",
    "Dispute",
    "Endpoint",
    "InboundEvent",
    "InboundPoll",
    "Invitation",
    "LedgerEntry",
    "LedgerProof",
    "Payment",
    "PaymentEvent",
    "Plan",
    "Processor",
    "Reconciliation",
    "Refund",
    "Rollup",
    "SandboxBooking",
    "SandboxRefund",
    "SignUp",
    "Stream",
    "Subscription",
]
