"""API of PaymentIntents. State changes are in confirming.py, charges in charges.py."""

import re
from typing import Any

from sandbox import charges, confirming, customers
from sandbox.endpoints import Call, endpoint
from sandbox.errors import StripeError, invalid
from sandbox.forms import FLAG, INTEGER, METADATA, PAGE, SPAN, TEXT, UNSETTABLE, Many, OneOf, require
from sandbox.state import State, Thing, listing, new_id, page, with_metadata

LEAST, MOST = 50, 99_999_999  # minor units
SHIPPING = {
    "name": TEXT,
    "phone": UNSETTABLE,
    "carrier": TEXT,
    "tracking_number": TEXT,
    "address": dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"), UNSETTABLE),
}
CARD_OPTIONS = {
    "request_three_d_secure": OneOf("automatic", "any", "challenge"),
    "capture_method": OneOf("manual"),
    "setup_future_usage": OneOf("none", "off_session", "on_session"),
}
COMMON = {
    "payment_method": TEXT,
    "allowed_payment_method_types": Many(TEXT),
    "payment_method_options": {"card": CARD_OPTIONS},
    "receipt_email": UNSETTABLE,
    "setup_future_usage": OneOf("off_session", "on_session"),
    "shipping": SHIPPING,
}
DESCRIBED = {
    "amount": INTEGER,
    "application_fee_amount": INTEGER,
    "currency": TEXT,
    "customer": TEXT,
    "description": UNSETTABLE,
    "metadata": METADATA,
    "statement_descriptor": UNSETTABLE,
    "statement_descriptor_suffix": UNSETTABLE,
    "transfer_group": TEXT,
}
CONFIRM = {
    "error_on_requires_action": FLAG,
    "off_session": FLAG,
    "return_url": TEXT,
    "use_stripe_sdk": FLAG,
    "mandate_data": {
        "customer_acceptance": {
            "type": TEXT,
            "online": {"ip_address": TEXT, "user_agent": TEXT},
            "accepted_at": INTEGER,
        }
    },
}
CREATE = {
    **COMMON,
    **DESCRIBED,
    **CONFIRM,
    "automatic_payment_methods": {"enabled": FLAG, "allow_redirects": OneOf("always", "never")},
    "capture_method": OneOf("automatic", "automatic_async", "manual"),
    "confirm": FLAG,
    "confirmation_method": OneOf("automatic", "manual"),
    "on_behalf_of": TEXT,
    "transfer_data": {"destination": TEXT, "amount": INTEGER},
}


@endpoint("POST", "/v1/payment_intents", CREATE)
def create(call: Call) -> Thing:
    state, params = call.state, call.params
    require(params, "amount", "currency")
    _check_money(params)
    _check_parties(state, params)
    automatic = params.get("automatic_payment_methods")
    if automatic is None and params.get("allowed_payment_method_types") != ["card"]:  # cards do not redirect
        automatic = {"enabled": True}
    _check_confirmation(params, automatic)
    method = params.get("payment_method")
    usable = customers.usable_method(state, method, params.get("customer"))["id"] if method else None
    intent = make(state, {**params, "payment_method": usable, "automatic_payment_methods": automatic})
    return confirming.confirm(state, intent, params) if params.get("confirm") else intent


def make(state: State, params: dict[str, Any]) -> Thing:
    """Create an intent of validated parameters, without a charge."""
    automatic = params.get("automatic_payment_methods")
    name = new_id("pi")
    intent = state.add(
        {
            "id": name,
            "object": "payment_intent",
            "amount": params["amount"],
            "amount_capturable": 0,
            "amount_details": {"tip": {}},
            "amount_received": 0,
            "application": None,
            "application_fee_amount": params.get("application_fee_amount"),
            "automatic_payment_methods": automatic and {"allow_redirects": "always", **automatic},
            "canceled_at": None,
            "cancellation_reason": None,
            "capture_method": params.get("capture_method", "automatic_async"),
            "client_secret": f"{name}_secret_{new_id('x', 25)[2:]}",
            "confirmation_method": params.get("confirmation_method", "automatic"),
            "created": state.now(),
            "currency": params["currency"].lower(),
            "customer": params.get("customer"),
            "description": params.get("description"),
            "last_payment_error": None,
            "latest_charge": None,
            "livemode": False,
            "metadata": with_metadata({}, params.get("metadata", {})),
            "next_action": None,
            "on_behalf_of": params.get("on_behalf_of"),
            "payment_method": params.get("payment_method"),
            "payment_method_options": params.get("payment_method_options", {}),
            "allowed_payment_method_types": params.get("allowed_payment_method_types"),
            "payment_method_types": ["card"],
            "processing": None,
            "receipt_email": params.get("receipt_email"),
            "setup_future_usage": params.get("setup_future_usage"),
            "shipping": params.get("shipping"),
            "statement_descriptor": params.get("statement_descriptor"),
            "statement_descriptor_suffix": params.get("statement_descriptor_suffix"),
            "status": "requires_confirmation" if params.get("payment_method") else "requires_payment_method",
            "transfer_data": params.get("transfer_data"),
            "transfer_group": params.get("transfer_group"),
        }
    )
    state.emit("payment_intent.created", intent)
    return intent


def _check_money(params: dict[str, Any]) -> None:
    if not re.fullmatch("[A-Za-z]{3}", params.get("currency", "usd")):
        raise invalid(f"Invalid currency: {params['currency']}.", param="currency")
    amount = params.get("amount", LEAST)
    if amount < 1:
        raise invalid(
            "This value must be greater than or equal to 1.", param="amount", code="parameter_invalid_integer"
        )
    if amount < LEAST:
        raise invalid("Amount must be at least 50 cents.", param="amount", code="amount_too_small")
    if amount > MOST:
        raise invalid("Amount must be no more than 999,999.99.", param="amount", code="amount_too_large")
    if (params.get("application_fee_amount") or 0) > amount:
        raise invalid("The application fee cannot be larger than the amount.", param="application_fee_amount")


def _check_confirmation(params: dict[str, Any], automatic: dict[str, Any] | None) -> None:
    """Validate before the intent is created: a refused request creates nothing."""
    if not params.get("confirm"):
        if only := [name for name in CONFIRM if name in params]:
            raise invalid(f"The parameter `{only[0]}` is only allowed together with `confirm=true`.", param=only[0])
    elif "payment_method" not in params:
        raise confirming.without_method()
    else:
        confirming.check_return_url(automatic, params)


def _check_parties(state: State, params: dict[str, Any]) -> None:
    if customer := params.get("customer"):
        state.find("customer", customer, "customer", status=400)
    if data := params.get("transfer_data"):
        require(data, "destination")
        state.find("account", data["destination"], "transfer_data[destination]", status=400)
    if params.get("application_fee_amount") and not data:
        raise invalid(
            "Can only apply an application_fee_amount when the PaymentIntent has transfer_data[destination].",
            param="application_fee_amount",
        )


def _use(state: State, intent: Thing, method: str) -> None:
    intent["payment_method"] = customers.usable_method(state, method, intent["customer"])["id"]
    intent["status"] = "requires_confirmation"
    state.save(intent)


@endpoint("GET", "/v1/payment_intents/{}", {"client_secret": TEXT}, publishable=True)
def retrieve(call: Call, name: str) -> Thing:
    return _known(call, name)


def _known(call: Call, name: str) -> Thing:
    """With the publishable key, access to an intent requires its client secret."""
    intent = call.state.find("payment_intent", name, "intent")
    secret = call.params.get("client_secret")
    if (call.publishable or secret) and secret != intent["client_secret"]:
        raise invalid(
            "The client_secret provided does not match the client_secret associated with the PaymentIntent.",
            param="client_secret",
            code="payment_intent_invalid_parameter",
        )
    return intent


@endpoint("POST", "/v1/payment_intents/{}", {**COMMON, **DESCRIBED})
def update(call: Call, name: str) -> Thing:
    intent = call.state.find("payment_intent", name, "intent")
    params = dict(call.params)
    fixed = {"amount", "currency", "payment_method"} & params.keys()
    if fixed and intent["status"] not in confirming.CONFIRMABLE:
        raise unexpected(intent, f"{sorted(fixed)[0]} cannot be updated")
    _check_money({"amount": intent["amount"], **params})
    params.pop("expand", None)
    if "metadata" in params:
        intent["metadata"] = with_metadata(intent["metadata"], params.pop("metadata"))
    if method := params.pop("payment_method", None):
        _use(call.state, intent, method)
    intent.update(params)
    return call.state.save(intent)


@endpoint("POST", "/v1/payment_intents/{}/confirm", {**COMMON, **CONFIRM, "client_secret": TEXT}, publishable=True)
def confirm(call: Call, name: str) -> Thing:
    intent = _known(call, name)
    if (method := call.params.get("payment_method")) and intent["status"] in confirming.CONFIRMABLE:
        _use(call.state, intent, method)
    return confirming.confirm(call.state, intent, call.params)


@endpoint(
    "POST",
    "/v1/payment_intents/{}/capture",
    {
        "amount_to_capture": INTEGER,
        "application_fee_amount": INTEGER,
        "final_capture": FLAG,
        "metadata": METADATA,
        "statement_descriptor": TEXT,
        "statement_descriptor_suffix": TEXT,
    },
)
def capture(call: Call, name: str) -> Thing:
    intent = call.state.find("payment_intent", name, "intent")
    if intent["status"] != "requires_capture":
        raise unexpected(intent, "could not be captured", ("requires_capture",))
    wanted = call.params.get("amount_to_capture")
    amount = intent["amount_capturable"] if wanted is None else wanted
    if not 1 <= amount <= intent["amount_capturable"]:
        raise invalid(
            f"The amount to capture must be from 1 to the amount that can be captured ({intent['amount_capturable']}).",
            param="amount_to_capture",
            code="amount_too_large" if amount > 0 else "parameter_invalid_integer",
        )
    if "metadata" in call.params:
        intent["metadata"] = with_metadata(intent["metadata"], call.params["metadata"])
    charges.capture(call.state, intent, amount)
    return intent


REASONS = OneOf("abandoned", "duplicate", "fraudulent", "requested_by_customer")


@endpoint("POST", "/v1/payment_intents/{}/cancel", {"cancellation_reason": REASONS})
def cancel(call: Call, name: str) -> Thing:
    intent = call.state.find("payment_intent", name, "intent")
    if intent["status"] not in confirming.CANCELABLE:
        raise unexpected(intent, "could not be canceled", confirming.CANCELABLE)
    return confirming.cancel(call.state, intent, call.params.get("cancellation_reason"))


def unexpected(intent: Thing, what: str, only: tuple[str, ...] = ()) -> StripeError:
    return confirming.unexpected(intent, what, only)


@endpoint("GET", "/v1/payment_intents", {**PAGE, "created": SPAN, "customer": TEXT})
def list_all(call: Call) -> Thing:
    customer = call.params.get("customer")
    return listing(call.state, "payment_intent", "/v1/payment_intents", call.params, customer=customer)


_CLAUSE = re.compile(r"""\s*(?:metadata\[(?:'(\w+)'|"(\w+)")\]|(status))\s*:\s*(?:'([^']*)'|"([^"]*)")\s*""")


@endpoint("GET", "/v1/payment_intents/search", {"query": TEXT, "limit": INTEGER, "page": TEXT})
def search(call: Call) -> Thing:
    """Search by metadata and status, joined by AND. At Stripe the index lags by up to a minute."""
    require(call.params, "query")
    wanted = []
    for clause in re.split(r"\s+AND\s+", call.params["query"]):
        if not (match := _CLAUSE.fullmatch(clause)):
            raise invalid("We were unable to parse your search query.", param="query")
        wanted.append((match[1] or match[2], match[4] if match[4] is not None else match[5]))
    found = [
        intent
        for intent in reversed(call.state.kinds["payment_intent"].values())
        if all((intent["metadata"].get(key) if key else intent["status"]) == text for key, text in wanted)
    ]
    answer = page(found, "/v1/payment_intents/search", {"limit": call.params.get("limit", 10)})
    return {**answer, "object": "search_result", "next_page": None}
