"""Refunds: partial and repeated; immediate, delayed or failing by test card."""

from typing import Any

from sandbox import charges
from sandbox.endpoints import Call, endpoint
from sandbox.errors import invalid
from sandbox.forms import FLAG, INTEGER, METADATA, PAGE, SPAN, TEXT, OneOf
from sandbox.state import State, Thing, listing, new_id, with_metadata

REASONS = OneOf("duplicate", "fraudulent", "requested_by_customer")


@endpoint(
    "POST",
    "/v1/refunds",
    {
        "amount": INTEGER,
        "charge": TEXT,
        "currency": TEXT,
        "instructions_email": TEXT,
        "metadata": METADATA,
        "payment_intent": TEXT,
        "reason": REASONS,
        "refund_application_fee": FLAG,
        "reverse_transfer": FLAG,
    },
)
def create(call: Call) -> Thing:
    state, params = call.state, call.params
    made = _charge(state, params)
    amount = _amount(made, params.get("amount"))
    card = charges.card_of(made)
    refund = state.add(
        {
            "id": new_id("re"),
            "object": "refund",
            "amount": amount,
            "balance_transaction": None,
            "charge": made["id"],
            "created": state.now(),
            "currency": made["currency"],
            "destination_details": {"card": {"reference_status": "pending", "type": "refund"}, "type": "card"},
            "metadata": with_metadata({}, params.get("metadata", {})),
            "payment_intent": made["payment_intent"],
            "reason": params.get("reason"),
            "receipt_number": None,
            "source_transfer_reversal": None,
            "status": "pending" if card.refund == "pending" else "succeeded",
            "transfer_reversal": None,
        }
    )
    refund["balance_transaction"] = charges.transaction(state, refund, "refund", -amount)["id"]
    _count(state, made, amount)
    if params.get("reverse_transfer") and made["transfer"]:
        refund["transfer_reversal"] = _reverse(state, made, amount)
    if params.get("refund_application_fee") and made["application_fee"]:
        _give_fee_back(state, made, amount)
    if card.refund != "succeeded":
        refund["_steps"] = ["refund_failed" if card.refund == "failed" else "refund_done"]
    state.emit("refund.created", state.save(refund))
    state.emit("charge.refunded", made)
    return refund


def _charge(state: State, params: dict[str, Any]) -> Thing:
    """The charge to refund. Raises StripeError if there is none."""
    if ("charge" in params) == ("payment_intent" in params):
        raise invalid("One of the following params should be provided for this request: payment_intent or charge.")
    if name := params.get("charge"):
        made = state.find("charge", name, "charge")
    else:
        intent = state.find("payment_intent", params["payment_intent"], "payment_intent")
        if intent["status"] != "succeeded":
            raise invalid(
                f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund.",
                param="payment_intent",
                code="payment_intent_unexpected_state",
            )
        made = state.find("charge", intent["latest_charge"])
    if made["status"] != "succeeded":
        raise invalid(f"Charge {made['id']} is not in a state that can be refunded.", param="charge")
    if made["disputed"]:
        raise invalid(f"Charge {made['id']} has been charged back; cannot issue a refund.", code="charge_disputed")
    return made


def _amount(made: Thing, wanted: int | None) -> int:
    left = made["amount"] - made["amount_refunded"]
    if left == 0:
        raise invalid(f"Charge {made['id']} has already been refunded.", code="charge_already_refunded")
    if wanted is None:
        return int(left)
    if wanted < 1:
        raise invalid("Invalid positive integer", param="amount", code="parameter_invalid_integer")
    if wanted > left:
        raise invalid(f"Refund amount ({wanted}) is greater than unrefunded amount on charge ({left}).", param="amount")
    return wanted


def _count(state: State, made: Thing, amount: int) -> None:
    made["amount_refunded"] += amount
    made["refunded"] = made["amount_refunded"] == made["amount"]
    state.save(made)


def _reverse(state: State, made: Thing, amount: int) -> str:
    """Reverse the transfer to the connected account in proportion."""
    transfer = state.find("transfer", made["transfer"])
    share = transfer["amount"] * amount // made["amount"]
    transfer["amount_reversed"] += share
    transfer["reversed"] = transfer["amount_reversed"] == transfer["amount"]
    reversal = state.add(
        {
            "id": new_id("trr"),
            "object": "transfer_reversal",
            "amount": share,
            "created": state.now(),
            "currency": made["currency"],
            "metadata": {},
            "transfer": transfer["id"],
        }
    )
    charges.transaction(state, reversal, "transfer_reversal", share)
    state.emit("transfer.reversed", state.save(transfer))
    return str(reversal["id"])


def _give_fee_back(state: State, made: Thing, amount: int) -> None:
    fee = state.find("application_fee", made["application_fee"])
    share = fee["amount"] * amount // made["amount"]
    fee["amount_refunded"] += share
    fee["refunded"] = fee["amount_refunded"] == fee["amount"]
    charges.transaction(state, fee, "application_fee_refund", -share)
    state.emit("application_fee.refunded", state.save(fee))


def succeed(state: State, refund: Thing) -> None:
    if refund["status"] == "pending":
        refund["status"] = "succeeded"
        state.emit("refund.updated", state.save(refund), previous={"status": "pending"})


def fail(state: State, refund: Thing) -> None:
    """Fail the refund, also after it succeeded: the bank returned the money."""
    if refund["status"] not in ("pending", "succeeded"):
        return
    refund.update(status="failed", failure_reason="expired_or_canceled_card")
    back = charges.transaction(state, refund, "refund_failure", refund["amount"])
    refund["failure_balance_transaction"] = back["id"]
    _count(state, state.find("charge", refund["charge"]), -refund["amount"])
    state.emit("refund.updated", state.save(refund))
    state.emit("refund.failed", refund)


@endpoint("GET", "/v1/refunds/{}")
def retrieve(call: Call, name: str) -> Thing:
    return call.state.find("refund", name)


@endpoint("POST", "/v1/refunds/{}", {"metadata": METADATA})
def update(call: Call, name: str) -> Thing:
    refund = call.state.find("refund", name)
    refund["metadata"] = with_metadata(refund["metadata"], call.params.get("metadata", {}))
    return call.state.save(refund)


@endpoint("GET", "/v1/refunds", {**PAGE, "created": SPAN, "charge": TEXT, "payment_intent": TEXT})
def list_all(call: Call) -> Thing:
    only: dict[str, Any] = {name: call.params.get(name) for name in ("charge", "payment_intent")}
    return listing(call.state, "refund", "/v1/refunds", call.params, **only)
