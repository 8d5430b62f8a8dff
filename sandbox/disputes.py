"""Disputes: opened by a test card or by the control API, answered with evidence, won or lost."""

from typing import Any

from sandbox import charges
from sandbox.endpoints import Call, endpoint
from sandbox.errors import invalid
from sandbox.forms import FLAG, METADATA, PAGE, SPAN, TEXT, UNSETTABLE
from sandbox.state import State, Thing, listing, new_id, with_metadata

FEE = 1500  # dispute fee in minor units, won or lost
DAYS_TO_ANSWER = 7
OPEN = ("needs_response", "under_review", "warning_needs_response", "warning_under_review")
EVIDENCE = dict.fromkeys(
    ("access_activity_log", "customer_email_address", "customer_name", "customer_purchase_ip", "product_description",
     "service_date", "shipping_carrier", "shipping_date", "shipping_tracking_number", "uncategorized_text"),
    UNSETTABLE,
)  # fmt: skip


def open_dispute(
    state: State, made: Thing, *, reason: str = "fraudulent", amount: int | None = None, inquiry: bool = False
) -> Thing:
    """Open a dispute, which withdraws the amount, or an inquiry, which does not. Raises StripeError."""
    if made["status"] != "succeeded" or not made["captured"]:
        raise invalid(f"Charge {made['id']} has no money that could be disputed.")
    if made["dispute"]:
        raise invalid(f"Charge {made['id']} is disputed already.")
    due = state.now() + DAYS_TO_ANSWER * charges.DAY
    dispute = state.add(
        {
            "id": new_id("du"),
            "object": "dispute",
            "amount": made["amount"] if amount is None else amount,
            "balance_transactions": [],
            "charge": made["id"],
            "created": state.now(),
            "currency": made["currency"],
            "evidence": dict.fromkeys(EVIDENCE),
            "evidence_details": {"due_by": due, "has_evidence": False, "past_due": False, "submission_count": 0},
            "is_charge_refundable": inquiry,
            "livemode": False,
            "metadata": {},
            "payment_intent": made["payment_intent"],
            "reason": reason,
            "status": "warning_needs_response" if inquiry else "needs_response",
        }
    )
    made.update(dispute=dispute["id"], disputed=not inquiry)
    state.emit("charge.dispute.created", dispute)
    if not inquiry:
        _move(state, dispute, -dispute["amount"], fee=FEE)
        state.emit("charge.dispute.funds_withdrawn", dispute)
    state.save(made)
    return dispute


def _move(state: State, dispute: Thing, amount: int, *, fee: int = 0) -> None:
    line = charges.transaction(state, dispute, "adjustment", amount, fee=fee)
    dispute["balance_transactions"].append(dict(line))
    state.save(dispute)


def close_dispute(state: State, dispute: Thing, *, won: bool) -> Thing:
    """Close the dispute with the bank's decision. Raises StripeError if it is closed."""
    if dispute["status"] not in OPEN:
        raise invalid("This dispute is already closed.")
    inquiry = dispute["status"].startswith("warning_")
    dispute["status"] = "warning_closed" if inquiry else ("won" if won else "lost")
    state.emit("charge.dispute.closed", state.save(dispute))
    if won and not inquiry:
        made = state.find("charge", dispute["charge"])
        made["disputed"] = False
        state.save(made)
        _move(state, dispute, dispute["amount"])
        state.emit("charge.dispute.funds_reinstated", dispute)
    return dispute


def of_card(state: State, made: Thing) -> None:
    """Automatic step: open the dispute of a test card after its charge."""
    open_dispute(state, made, reason=charges.card_of(made).dispute)


@endpoint("GET", "/v1/disputes/{}")
def retrieve(call: Call, name: str) -> Thing:
    return call.state.find("dispute", name)


@endpoint("POST", "/v1/disputes/{}", {"evidence": EVIDENCE, "metadata": METADATA, "submit": FLAG})
def update(call: Call, name: str) -> Thing:
    """Submit evidence. As in Stripe's test mode, the text `winning_evidence` or `losing_evidence` closes the dispute."""
    state, params, dispute = call.state, call.params, call.state.find("dispute", name)
    if dispute["status"] not in OPEN:
        raise invalid("This dispute is already closed.")
    dispute["metadata"] = with_metadata(dispute["metadata"], params.get("metadata", {}))
    if evidence := params.get("evidence"):
        dispute["evidence"].update(evidence)
        dispute["evidence_details"]["has_evidence"] = True
    if evidence and params.get("submit", True):
        dispute["evidence_details"]["submission_count"] += 1
        dispute["status"] = dispute["status"].replace("needs_response", "under_review")
    state.emit("charge.dispute.updated", state.save(dispute))
    verdict = (evidence or {}).get("uncategorized_text")
    if verdict in ("winning_evidence", "losing_evidence"):
        close_dispute(state, dispute, won=verdict == "winning_evidence")
    return dispute


@endpoint("POST", "/v1/disputes/{}/close")
def close(call: Call, name: str) -> Thing:
    """Accept the dispute as lost."""
    return close_dispute(call.state, call.state.find("dispute", name), won=False)


@endpoint("GET", "/v1/disputes", {**PAGE, "created": SPAN, "charge": TEXT, "payment_intent": TEXT})
def list_all(call: Call) -> Thing:
    only: dict[str, Any] = {name: call.params.get(name) for name in ("charge", "payment_intent")}
    return listing(call.state, "dispute", "/v1/disputes", call.params, **only)
