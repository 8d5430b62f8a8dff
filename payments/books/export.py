"""Export and erasure of payments' tables: which rows a tenant's export has, which columns are personal, what must end first."""

from pathlib import Path

from registry.data import database
from registry.tenants import erasure, export
from registry.tenants.export import Table

SQL = database.statements(Path(__file__).parent / "sql" / "export.sql")

export.TABLES |= {
    "payments.SandboxBooking": Table(where=SQL["own_processors"]),
    "payments.SandboxRefund": Table(where=SQL["own_processors"]),
    "payments.InboundEvent": Table(content=("body",)),
}
export.LEFT_OUT |= {
    "payments.Endpoint": "health of addresses that tenants share",
    "payments.LedgerProof": "proofs of all tenants' ledger together",
    "payments.Plan": "what the service offers to all",
}

_NAMES_ONE = SQL["names"]  # events without a handler have no payment id, but their body may
_OVER = "t.closed IS NOT NULL"  # deliveries that are still due keep their content until they are sent

erasure.PERSONAL |= {
    "payments.Payment": {
        "description": "''",
        "metadata": "NULL",
        "method": "NULL",
        "return_url": "''",
        "fingerprint": "''::bytea",
    },
    "payments.Attempt": {"action": "NULL"},
    "payments.Refund": {"reason": "''", "actor": "''", "fingerprint": "''::bytea"},
    "payments.InboundEvent": {"body": "''::bytea", "headers": "'{}'", "error": "''"},
    "payments.DeadLetter": {"resolved_by": "''", "detail": "''"},
    "payments.Difference": {"note": "''", "resolved_by": "''"},
    "payments.Processor": {"secrets": "NULL", "options": "'{}'"},
    "payments.SignUp": {"data": "'{}'"},
    "payments.Invitation": {"email": "'erased-' || t.id || '@invalid'", "invited_by": "''"},
}
erasure.ONLY |= {"payments.InboundEvent": _OVER}
erasure.SEARCHED.add("payments.InboundEvent")
erasure.OF_PAYMENTS |= {
    "payments.Payment": "t.id = ANY(%(payments)s)",
    "payments.Attempt": "t.payment_id = ANY(%(payments)s)",
    "payments.Refund": "t.payment_id = ANY(%(payments)s)",
    "payments.InboundEvent": f"(t.payment_id = ANY(%(payments)s) OR (t.payment_id IS NULL AND {_NAMES_ONE}))",
    "payments.DeadLetter": "t.payment_id = ANY(%(payments)s)",
    "payments.Difference": "t.payment_id = ANY(%(payments)s)",
    "queueing.WebhookDelivery": "t.subject = ANY(%(correlations)s)",
    "queueing.WebhookAttempt": SQL["attempts_of"],
}

_REFERENCES = "names at the processor; with money rows that stay they prove what was booked"
_OURS = "written by the service, of events and not of people"

erasure.KEPT |= {
    **dict.fromkeys(
        ("payments.Attempt.reference", "payments.Refund.reference", "payments.Dispute.reference",
         "payments.Difference.reference", "payments.Difference.key", "payments.InboundEvent.event_id",
         "payments.InboundEvent.object_id", "payments.InboundEvent.account", "payments.InboundPoll.cursor",
         "payments.Subscription.stripe_customer", "payments.Subscription.stripe_subscription"), _REFERENCES,
    ),
    **dict.fromkeys(
        ("payments.Attempt.reason", "payments.PaymentEvent.detail", "payments.Reconciliation.fault",
         "payments.InboundPoll.error"), _OURS,
    ),
    "payments.Processor.url": "where what is in doubt would be asked about; an address of a company",
}  # fmt: skip
erasure.ERASABLE.append(SQL["erasable"])
erasure.MUST_END["payments that are not settled"] = SQL["open_payments"]
erasure.MUST_END["refunds that are owed"] = SQL["open_refunds"]
erasure.MUST_END["events of processors that are not handled"] = SQL["open_events"]
erasure.MUST_END["subscription at Stripe that goes on"] = SQL["live_subscriptions"]
