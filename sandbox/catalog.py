"""Products and their prices."""

from typing import Any

from sandbox.endpoints import Call, endpoint
from sandbox.errors import invalid
from sandbox.forms import FLAG, INTEGER, METADATA, PAGE, SPAN, TEXT, UNSETTABLE, Many, OneOf, require
from sandbox.state import State, Thing, listing, new_id, with_metadata

PRODUCT = {"active": FLAG, "description": UNSETTABLE, "metadata": METADATA, "name": TEXT}
RECURRING = {"interval": OneOf("day", "week", "month", "year"), "interval_count": INTEGER, "trial_period_days": INTEGER}
SECONDS = {"day": 86_400, "week": 7 * 86_400, "month": 30 * 86_400, "year": 365 * 86_400}


@endpoint("POST", "/v1/products", {**PRODUCT, "id": TEXT})
def create_product(call: Call) -> Thing:
    require(call.params, "name")
    if (name := call.params.get("id")) in call.state.kinds["product"]:
        raise invalid(f"Product already exists: {name}", code="resource_already_exists", param="id")
    return make_product(call.state, call.params)


def make_product(state: State, params: Thing) -> Thing:
    product = state.add(
        {
            "id": params.get("id") or new_id("prod", 14),
            "object": "product",
            "active": params.get("active", True),
            "created": state.now(),
            "default_price": None,
            "description": params.get("description"),
            "livemode": False,
            "metadata": with_metadata({}, params.get("metadata", {})),
            "name": params["name"],
            "type": "service",
            "updated": state.now(),
        }
    )
    state.emit("product.created", product)
    return product


@endpoint("GET", "/v1/products/{}")
def retrieve_product(call: Call, name: str) -> Thing:
    return call.state.find("product", name)


@endpoint("POST", "/v1/products/{}", PRODUCT)
def update_product(call: Call, name: str) -> Thing:
    return _update(call, call.state.find("product", name))


@endpoint("GET", "/v1/products", {**PAGE, "active": FLAG, "created": SPAN})
def list_products(call: Call) -> Thing:
    return listing(call.state, "product", "/v1/products", call.params, active=call.params.get("active"))


PRICE = {
    "active": FLAG,
    "lookup_key": TEXT,
    "metadata": METADATA,
    "nickname": UNSETTABLE,
    "transfer_lookup_key": FLAG,
}


@endpoint(
    "POST",
    "/v1/prices",
    {
        **PRICE,
        "currency": TEXT,
        "product": TEXT,
        "product_data": {"name": TEXT, "metadata": METADATA},
        "recurring": RECURRING,
        "unit_amount": INTEGER,
    },
)
def create_price(call: Call) -> Thing:
    require(call.params, "currency", "unit_amount")
    return make_price(call.state, call.params)


def make_price(state: State, params: Thing) -> Thing:
    """Create a price. Raises StripeError if the product does not exist."""
    if data := params.get("product_data"):
        product = make_product(state, data)
    else:
        require(params, "product")
        product = state.find("product", params["product"], "product", status=400)
    _free_lookup_key(state, params)
    recurring = params.get("recurring")
    price = state.add(
        {
            "id": new_id("price"),
            "object": "price",
            "active": params.get("active", True),
            "billing_scheme": "per_unit",
            "created": state.now(),
            "currency": params["currency"].lower(),
            "livemode": False,
            "lookup_key": params.get("lookup_key"),
            "metadata": with_metadata({}, params.get("metadata", {})),
            "nickname": params.get("nickname"),
            "product": product["id"],
            "recurring": recurring
            and {"interval_count": 1, "meter": None, "trial_period_days": None, "usage_type": "licensed", **recurring},
            "tax_behavior": "unspecified",
            "type": "recurring" if recurring else "one_time",
            "unit_amount": params["unit_amount"],
            "unit_amount_decimal": str(params["unit_amount"]),
        }
    )
    state.emit("price.created", price)
    return price


def _free_lookup_key(state: State, params: Thing) -> None:
    """A lookup key belongs to one price; another price gets it only with `transfer_lookup_key`."""
    key = params.get("lookup_key")
    for owner in state.of("price", lookup_key=key) if key else []:
        if not params.get("transfer_lookup_key"):
            raise invalid(f"A price (`{owner['id']}`) already uses that lookup key.", param="lookup_key")
        owner["lookup_key"] = None
        state.save(owner)


@endpoint("GET", "/v1/prices/{}")
def retrieve_price(call: Call, name: str) -> Thing:
    return call.state.find("price", name)


@endpoint("POST", "/v1/prices/{}", PRICE)
def update_price(call: Call, name: str) -> Thing:
    return _update(call, call.state.find("price", name))


@endpoint("GET", "/v1/prices", {**PAGE, "active": FLAG, "created": SPAN, "lookup_keys": Many(TEXT), "product": TEXT})
def list_prices(call: Call) -> Thing:
    only: dict[str, Any] = {name: call.params.get(name) for name in ("active", "product")}
    keys = call.params.get("lookup_keys")
    return listing(
        call.state, "price", "/v1/prices", call.params, lambda price: not keys or price["lookup_key"] in keys, **only
    )


def _update(call: Call, thing: Thing) -> Thing:
    params = {name: value for name, value in call.params.items() if name not in ("expand", "transfer_lookup_key")}
    if "metadata" in params:
        params["metadata"] = with_metadata(thing["metadata"], params["metadata"])
    thing.update(params)
    call.state.emit(f"{thing['object']}.updated", thing)
    return call.state.save(thing)


def period(price: Thing) -> int:
    """Seconds of a billing period; a month has thirty days here."""
    return int(SECONDS[price["recurring"]["interval"]] * price["recurring"]["interval_count"])
