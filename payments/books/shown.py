"""The facts that a payment's shown state is derived from (payments.states.shown_state), as expressions for lists of payments.

A list annotates its rows with both; they are looked up by the index of disputes, and only for rows that succeeded.
"""

from typing import Any

from django.db.models import Case, Exists, OuterRef, Value, When

from payments.models import Dispute
from payments.states import SUCCEEDED

_mine = Dispute.objects.filter(payment_id=OuterRef("id"), tenant_id=OuterRef("tenant_id"))


def _if_succeeded(found: Exists) -> Case:
    return Case(When(status=SUCCEEDED, then=found), default=Value(False))


DISPUTES: dict[str, Any] = {
    "disputed": _if_succeeded(Exists(_mine.filter(closed_at=None))),
    "lost": _if_succeeded(Exists(_mine.filter(closed_at__isnull=False, withdrawn__gt=0))),
}
