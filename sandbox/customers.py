"""Customers and their payment methods."""

from typing import Any

from sandbox.cards import CARDS
from sandbox.endpoints import Call, endpoint
from sandbox.errors import StripeError, declined, invalid, missing
from sandbox.forms import METADATA, PAGE, SPAN, TEXT, UNSETTABLE, require
from sandbox.state import State, Thing, listing, new_id, page, with_metadata

ADDRESS = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"), UNSETTABLE)
CUSTOMER = {
    "address": ADDRESS,
    "description": UNSETTABLE,
    "email": UNSETTABLE,
    "metadata": METADATA,
    "name": UNSETTABLE,
    "phone": UNSETTABLE,
    "invoice_settings": {"default_payment_method": TEXT},
}


def usable_method(state: State, name: str, customer: str | None) -> Thing:
    """The payment method with this id; the name of a test card creates one. Raises StripeError (400)."""
    if name in CARDS:
        return make_method(state, name)
    method = state.find("payment_method", name, "payment_method", status=400)
    if (owner := method["customer"]) and owner != customer:
        raise invalid(
            f"The provided PaymentMethod ({name}) belongs to the Customer {owner}. Please include the Customer in the "
            "`customer` parameter.",
            param="payment_method",
        )
    if method.get("_detached"):
        raise invalid(f"The provided PaymentMethod ({name}) was detached from a Customer and may not be used again.")
    return method


def make_method(state: State, card: str) -> Thing:
    address = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"))
    return state.add(
        {
            "id": new_id("pm"),
            "object": "payment_method",
            "allow_redisplay": "unspecified",
            "billing_details": {"address": address, "email": None, "name": None, "phone": None, "tax_id": None},
            "card": CARDS[card].details(),
            "created": state.now(),
            "customer": None,
            "livemode": False,
            "metadata": {},
            "type": "card",
            "_card": card,
        }
    )


@endpoint("POST", "/v1/customers", {**CUSTOMER, "payment_method": TEXT})
def create(call: Call) -> Thing:
    customer = make(call.state, call.params)
    if method := call.params.get("payment_method"):
        attach_to(call.state, usable_method(call.state, method, None), customer)
    _set_default(call.state, customer, call.params)
    return customer


def make(state: State, params: Thing) -> Thing:
    customer = state.add(
        {
            "id": new_id("cus", 14),
            "object": "customer",
            "address": params.get("address"),
            "balance": 0,
            "created": state.now(),
            "currency": None,
            "default_source": None,
            "delinquent": False,
            "description": params.get("description"),
            "email": params.get("email"),
            "invoice_prefix": new_id("X", 8)[2:].upper(),
            "invoice_settings": {"default_payment_method": None},
            "livemode": False,
            "metadata": with_metadata({}, params.get("metadata", {})),
            "name": params.get("name"),
            "phone": params.get("phone"),
            "preferred_locales": [],
            "shipping": None,
            "tax_exempt": "none",
        }
    )
    state.emit("customer.created", customer)
    return customer


def _set_default(state: State, customer: Thing, params: Thing) -> None:
    name = (params.get("invoice_settings") or {}).get("default_payment_method")
    if not name:
        return
    method = state.find("payment_method", name, "invoice_settings[default_payment_method]", status=400)
    if method["customer"] != customer["id"]:
        raise invalid("The customer does not have a payment method with this ID.", code="resource_missing")
    customer["invoice_settings"]["default_payment_method"] = name


@endpoint("GET", "/v1/customers/{}")
def retrieve(call: Call, name: str) -> Thing:
    return call.state.find("customer", name)


@endpoint("POST", "/v1/customers/{}", CUSTOMER)
def update(call: Call, name: str) -> Thing:
    customer, params = call.state.find("customer", name), dict(call.params)
    params.pop("expand", None)
    _set_default(call.state, customer, params)
    params.pop("invoice_settings", None)
    if "metadata" in params:
        params["metadata"] = with_metadata(customer["metadata"], params["metadata"])
    customer.update(params)
    call.state.emit("customer.updated", customer)
    return call.state.save(customer)


@endpoint("DELETE", "/v1/customers/{}")
def delete(call: Call, name: str) -> Thing:
    customer = call.state.find("customer", name)
    call.state.emit("customer.deleted", customer)
    call.state.remove(customer)
    return {"id": name, "object": "customer", "deleted": True}


@endpoint("GET", "/v1/customers", {**PAGE, "created": SPAN, "email": TEXT})
def list_all(call: Call) -> Thing:
    return listing(call.state, "customer", "/v1/customers", call.params, email=call.params.get("email"))


# -- Payment methods ------------------------------------------------------------------------------------------


@endpoint("POST", "/v1/payment_methods", {"type": TEXT, "card": {"token": TEXT}, "metadata": METADATA})
def create_method(call: Call) -> Thing:
    """Create a payment method from a token (`tok_visa`); card numbers are refused."""
    require(call.params, "type", "card")
    token = call.params["card"].get("token", "")
    if (card := token.replace("tok_", "pm_card_", 1)) not in CARDS:
        raise missing("token", token, "card[token]", 400)
    return make_method(call.state, card)


@endpoint("GET", "/v1/payment_methods/{}")
def retrieve_method(call: Call, name: str) -> Thing:
    return call.state.find("payment_method", name, "payment_method")


@endpoint("POST", "/v1/payment_methods/{}/attach", {"customer": TEXT})
def attach(call: Call, name: str) -> Thing:
    require(call.params, "customer")
    customer = call.state.find("customer", call.params["customer"], "customer", status=400)
    method = make_method(call.state, name) if name in CARDS else call.state.find("payment_method", name)
    return attach_to(call.state, method, customer)


def attach_to(state: State, method: Thing, customer: Thing) -> Thing:
    if method["customer"] not in (None, customer["id"]) or method.get("_detached"):
        raise invalid("The payment method you provided has already been attached to a customer.")
    if trouble := trouble_with(method):
        raise trouble
    method["customer"] = customer["id"]
    state.emit("payment_method.attached", method)
    return state.save(method)


def trouble_with(method: Thing) -> StripeError | None:
    """Attach a card to a customer. Raises StripeError if its bank declines that."""
    card = CARDS[method["_card"]]
    if not card.code or method["_card"] == "pm_card_chargeCustomerFail":
        return None
    return declined(card.message, code=card.code, decline_code=card.decline_code or None)


@endpoint("POST", "/v1/payment_methods/{}/detach")
def detach(call: Call, name: str) -> Thing:
    method = call.state.find("payment_method", name)
    method.update(customer=None, _detached=True)
    call.state.emit("payment_method.detached", method)
    return call.state.save(method)


@endpoint("GET", "/v1/payment_methods", {**PAGE, "customer": TEXT, "type": TEXT})
def list_methods(call: Call) -> Thing:
    only: dict[str, Any] = {name: call.params.get(name) for name in ("customer", "type")}
    return listing(call.state, "payment_method", "/v1/payment_methods", call.params, **only)


@endpoint("GET", "/v1/customers/{}/payment_methods", {**PAGE, "type": TEXT})
def list_methods_of(call: Call, customer: str) -> Thing:
    call.state.find("customer", customer, "customer")
    url = f"/v1/customers/{customer}/payment_methods"
    return page(call.state.of("payment_method", customer=customer)[::-1], url, call.params)
