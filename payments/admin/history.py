"""Attempts, timeline and ledger lines on a payment's page."""

from typing import Any

from payments.admin.cells import money, status_pill
from payments.models import Attempt, LedgerEntry, Payment, PaymentEvent, Processor
from payments.pages.timeline import OUTCOMES
from registry.operators.cells import link_to, pill

HISTORY = 200  # rows of each kind; a payment with more is broken


def history(payment: Payment) -> dict[str, Any]:
    """Attempts, timeline and ledger lines of a payment, for its page."""
    mine = {"tenant_id": payment.tenant_id, "payment_id": payment.pk}
    names = dict(Processor.objects.filter(tenant_id=payment.tenant_id).values_list("pk", "name"))
    attempts = list(Attempt.objects.filter(**mine).order_by("number")[:HISTORY])
    for attempt in attempts:
        name = names.get(attempt.processor_id)
        gone = f"processor {attempt.processor_id}, removed"
        attempt.at = link_to(Processor, attempt.processor_id, name) if name else gone
        attempt.look = pill(*OUTCOMES[attempt.outcome])
    events = list(PaymentEvent.objects.filter(**mine).order_by("sequence")[:HISTORY])
    for event in events:
        event.look, event.processor_name = status_pill(event.status), names.get(event.processor_id or 0, "")
        event.after_ms = round((event.at - events[0].at).total_seconds() * 1000)
    entries = list(LedgerEntry.objects.filter(**mine).order_by("id")[:HISTORY])
    for entry in entries:
        entry.debit = money(entry.amount, entry.currency) if entry.amount >= 0 else ""
        entry.credit = money(-entry.amount, entry.currency) if entry.amount < 0 else ""
    return {
        "attempts": attempts,
        "events": events,
        "entries": entries,
        "unbalanced": sum(entry.amount for entry in entries) != 0,
    }
