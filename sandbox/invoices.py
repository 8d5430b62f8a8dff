"""Invoices of subscriptions: open, charged, retried, paid, void."""

from typing import Any

from sandbox import charges, customers, payment_intents
from sandbox.cards import CARDS
from sandbox.endpoints import Call, endpoint
from sandbox.errors import StripeError, declined, invalid
from sandbox.forms import FLAG, PAGE, SPAN, TEXT, OneOf
from sandbox.state import State, Thing, listing, new_id

RETRIES = (3 * 86_400, 5 * 86_400, 7 * 86_400)  # seconds between retries, a usual setting in the dashboard


def make(state: State, subscription: Thing, *, reason: str, amount: int, start: int, end: int) -> Thing:
    """Create an open invoice for a period of a subscription, without a charge."""
    name = new_id("in")
    invoice = state.add(
        {
            "id": name,
            "object": "invoice",
            "amount_due": amount,
            "amount_paid": 0,
            "amount_remaining": amount,
            "attempt_count": 0,
            "attempted": False,
            "auto_advance": True,
            "billing_reason": reason,
            "collection_method": "charge_automatically",
            "created": state.now(),
            "currency": subscription["currency"],
            "customer": subscription["customer"],
            "default_payment_method": None,
            "hosted_invoice_url": f"{state.url}/sandbox/invoice/{name}",
            "invoice_pdf": None,
            "lines": {
                "object": "list",
                "data": [_line(state, subscription, amount=amount, start=start, end=end)],
                "has_more": False,
                "url": f"/v1/invoices/{name}/lines",
            },
            "livemode": False,
            "metadata": {},
            "next_payment_attempt": None,
            "number": f"SANDBOX-{len(state.kinds['invoice']) + 1:04d}",
            "parent": {"type": "subscription_details", "subscription_details": _parent(subscription)},
            "period_end": end,
            "period_start": start,
            "status": "open",
            "status_transitions": {"finalized_at": state.now(), "paid_at": None, "voided_at": None},
            "subtotal": amount,
            "total": amount,
            "_subscription": subscription["id"],
        }
    )
    subscription["latest_invoice"] = name
    state.emit("invoice.created", {**invoice, "status": "draft"})
    state.emit("invoice.finalized", invoice)
    return invoice


def _line(state: State, subscription: Thing, *, amount: int, start: int, end: int) -> Thing:
    item = subscription["items"]["data"][0]
    return {
        "id": new_id("il"),
        "object": "line_item",
        "amount": amount,
        "currency": subscription["currency"],
        "description": state.find("product", item["price"]["product"])["name"],
        "period": {"start": start, "end": end},
        "quantity": item["quantity"],
    }


def _parent(subscription: Thing) -> Thing:
    return {"metadata": dict(subscription["metadata"]), "subscription": subscription["id"]}


def pay(state: State, invoice: Thing, method: str | None) -> bool:
    """Charge the invoice to `method`; without one it fails like a decline. True if it is paid."""
    if invoice["status"] != "open":
        return bool(invoice["status"] == "paid")
    invoice["attempted"] = True
    error = _charge(state, invoice, method) if invoice["amount_due"] else None
    if error is None:
        _paid(state, invoice)
        return True
    invoice["attempt_count"] += 1
    tries = invoice["attempt_count"]
    invoice["next_payment_attempt"] = state.now() + RETRIES[tries - 1] if tries <= len(RETRIES) else None
    state.emit("invoice.payment_failed", state.save(invoice))
    return False


def _charge(state: State, invoice: Thing, method: str | None) -> StripeError | None:
    if method is None:
        return declined("This customer has no attached payment source or default payment method.", code="missing")
    intent = payment_intents.make(
        state,
        {
            "amount": invoice["amount_due"],
            "currency": invoice["currency"],
            "customer": invoice["customer"],
            "description": f"Subscription: {invoice['number']}",
            "capture_method": "automatic",
            "payment_method": method,
        },
    )
    invoice["_intent"] = intent["id"]
    card = CARDS[state.find("payment_method", method)["_card"]]
    try:
        if card.authenticate and not state.find("payment_method", method).get("_authenticated"):
            error = declined("Your card was declined. It requires authentication.", code="authentication_required")
            raise charges.refuse(state, intent, error)
        charges.charge(state, intent, card)
    except StripeError as error:
        return error
    return None


def _paid(state: State, invoice: Thing) -> None:
    invoice.update(
        status="paid", amount_paid=invoice["amount_due"], amount_remaining=0, attempt_count=invoice["attempt_count"] + 1
    )
    invoice["next_payment_attempt"] = None
    invoice["status_transitions"]["paid_at"] = state.now()
    state.emit("invoice.paid", state.save(invoice))
    if invoice["amount_due"]:
        state.emit("invoice.payment_succeeded", invoice)


def void(state: State, invoice: Thing) -> Thing:
    if invoice["status"] != "open":
        raise invalid("You can only void an invoice that is open.", code="invoice_not_editable")
    invoice["status"], invoice["next_payment_attempt"] = "void", None
    invoice["status_transitions"]["voided_at"] = state.now()
    state.emit("invoice.voided", invoice)
    return state.save(invoice)


# -- API ------------------------------------------------------------------------------------


@endpoint("GET", "/v1/invoices/{}")
def retrieve(call: Call, name: str) -> Thing:
    return call.state.find("invoice", name)


STATUSES = OneOf("draft", "open", "paid", "uncollectible", "void")


@endpoint("GET", "/v1/invoices", {**PAGE, "created": SPAN, "customer": TEXT, "subscription": TEXT, "status": STATUSES})
def list_all(call: Call) -> Thing:
    params = call.params
    only: dict[str, Any] = {
        "customer": params.get("customer"),
        "status": params.get("status"),
        "_subscription": params.get("subscription"),
    }
    return listing(call.state, "invoice", "/v1/invoices", params, **only)


@endpoint("POST", "/v1/invoices/{}/pay", {"payment_method": TEXT, "off_session": FLAG, "paid_out_of_band": FLAG})
def pay_now(call: Call, name: str) -> Thing:
    """Pay the invoice; subscriptions.py updates the subscription."""
    from sandbox import subscriptions  # imports this module: it creates the invoices

    state, invoice = call.state, call.state.find("invoice", name)
    if invoice["status"] != "open":
        raise invalid("Invoice is already paid" if invoice["status"] == "paid" else "This invoice is not open.")
    subscription = state.find("subscription", invoice["_subscription"])
    method = call.params.get("payment_method")
    if method:
        method = customers.usable_method(state, method, invoice["customer"])["id"]
    if call.params.get("paid_out_of_band"):
        _paid(state, invoice)
        subscriptions.after_payment(state, subscription, paid=True)
    elif not subscriptions.collect(state, subscription, invoice, method):
        raise declined("Your card was declined.", code="card_declined", decline_code="generic_decline")
    return invoice


@endpoint("POST", "/v1/invoices/{}/void")
def void_now(call: Call, name: str) -> Thing:
    return void(call.state, call.state.find("invoice", name))
