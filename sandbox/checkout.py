"""API of Checkout sessions for subscriptions and of the billing portal. Their pages are in billing_pages.py."""

from typing import Any

from sandbox import customers, subscriptions
from sandbox.endpoints import Call, endpoint
from sandbox.errors import StripeError, declined, invalid
from sandbox.forms import FLAG, INTEGER, METADATA, PAGE, TEXT, Many, OneOf, require
from sandbox.state import State, Thing, listing, new_id, with_metadata

OPEN_FOR = 24 * 3600  # seconds
SESSION = {
    "allow_promotion_codes": FLAG,
    "cancel_url": TEXT,
    "client_reference_id": TEXT,
    "customer": TEXT,
    "customer_email": TEXT,
    "line_items": Many({"price": TEXT, "quantity": INTEGER}),
    "locale": TEXT,
    "metadata": METADATA,
    "mode": OneOf("subscription"),
    "payment_method_collection": OneOf("always", "if_required"),
    "allowed_payment_method_types": Many(TEXT),
    "subscription_data": {
        "description": TEXT,
        "metadata": METADATA,
        "trial_end": TEXT,
        "trial_period_days": INTEGER,
        "trial_settings": subscriptions.TRIAL_SETTINGS,
    },
    "success_url": TEXT,
}


@endpoint("POST", "/v1/checkout/sessions", SESSION)
def create(call: Call) -> Thing:
    state, params = call.state, call.params
    require(params, "mode", "line_items", "success_url")
    if "customer" in params and "customer_email" in params:
        raise invalid("You may only specify one of these parameters: customer, customer_email.")
    if "customer" in params:
        state.find("customer", params["customer"], "customer", status=400)
    price = state.find("price", params["line_items"][0].get("price", ""), "line_items[0][price]", status=400)
    name = new_id("cs_test", 32)
    total = price["unit_amount"] * params["line_items"][0].get("quantity", 1)
    return state.add(
        {
            "id": name,
            "object": "checkout.session",
            "amount_subtotal": total,
            "amount_total": total,
            "cancel_url": params.get("cancel_url"),
            "client_reference_id": params.get("client_reference_id"),
            "created": state.now(),
            "currency": price["currency"],
            "customer": params.get("customer"),
            "customer_email": params.get("customer_email"),
            "expires_at": state.now() + OPEN_FOR,
            "invoice": None,
            "livemode": False,
            "metadata": with_metadata({}, params.get("metadata", {})),
            "mode": params["mode"],
            "payment_intent": None,
            "payment_method_collection": params.get("payment_method_collection", "always"),
            "payment_status": "unpaid",
            "setup_intent": None,
            "status": "open",
            "subscription": None,
            "success_url": params["success_url"],
            "url": f"{state.url}/sandbox/checkout/{name}",
            "_items": params["line_items"],
            "_subscription_data": params.get("subscription_data", {}),
        }
    )


def complete(state: State, session: Thing, card: str) -> Thing:
    """Complete the session with the chosen card. Raises StripeError if it is declined; the session then stays open."""
    if session["status"] != "open":
        raise invalid("This session is not open any more.")
    if session["customer"] is None:
        made = customers.make(state, {"email": session["customer_email"]})
        session["customer"] = made["id"]
    customer = state.find("customer", session["customer"])
    method = customers.usable_method(state, card, customer["id"])
    if (trouble := customers.trouble_with(method)) is not None:
        raise trouble
    customers.attach_to(state, method, customer)
    subscription = subscriptions.make(
        state,
        {
            "customer": customer["id"],
            "items": session["_items"],
            "default_payment_method": method["id"],
            **session["_subscription_data"],
        },
    )
    if subscription["status"] == "incomplete":
        subscriptions.end(state, subscription)
        raise _declined()
    session.update(status="complete", subscription=subscription["id"], invoice=subscription["latest_invoice"], url=None)
    session["payment_status"] = "no_payment_required" if subscription["status"] == "trialing" else "paid"
    state.emit("checkout.session.completed", session)
    return state.save(session)


def _declined() -> StripeError:
    return declined("Your card was declined.", code="card_declined", decline_code="generic_decline")


@endpoint("GET", "/v1/checkout/sessions/{}")
def retrieve(call: Call, name: str) -> Thing:
    return call.state.find("checkout.session", name)


@endpoint("POST", "/v1/checkout/sessions/{}/expire")
def expire(call: Call, name: str) -> Thing:
    session = call.state.find("checkout.session", name)
    if session["status"] != "open":
        raise invalid('Only Checkout Sessions with a status in ["open"] can be expired.')
    session.update(status="expired", url=None)
    call.state.emit("checkout.session.expired", session)
    return call.state.save(session)


@endpoint("GET", "/v1/checkout/sessions", {**PAGE, "customer": TEXT, "subscription": TEXT})
def list_all(call: Call) -> Thing:
    only: dict[str, Any] = {name: call.params.get(name) for name in ("customer", "subscription")}
    return listing(call.state, "checkout.session", "/v1/checkout/sessions", call.params, **only)


@endpoint("POST", "/v1/billing_portal/sessions", {"customer": TEXT, "return_url": TEXT, "locale": TEXT})
def create_portal(call: Call) -> Thing:
    require(call.params, "customer")
    call.state.find("customer", call.params["customer"], "customer", status=400)
    name = new_id("bps")
    return call.state.add(
        {
            "id": name,
            "object": "billing_portal.session",
            "created": call.state.now(),
            "customer": call.params["customer"],
            "livemode": False,
            "return_url": call.params.get("return_url"),
            "url": f"{call.state.url}/sandbox/portal/{name}",
        }
    )
