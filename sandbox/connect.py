"""Connected accounts and their balances. Destination charges transfer to them (charges.py)."""

from typing import Any

from sandbox.endpoints import Call, endpoint
from sandbox.forms import FLAG, METADATA, PAGE, SPAN, TEXT, OneOf, require
from sandbox.state import State, Thing, listing, new_id, with_metadata

CAPABILITIES = {name: {"requested": FLAG} for name in ("card_payments", "transfers")}
ACCOUNT = {
    "business_profile": dict.fromkeys(("mcc", "name", "product_description", "support_email", "url"), TEXT),
    "business_type": OneOf("company", "government_entity", "individual", "non_profit"),
    "capabilities": CAPABILITIES,
    "default_currency": TEXT,
    "email": TEXT,
    "metadata": METADATA,
}


@endpoint("POST", "/v1/accounts", {**ACCOUNT, "country": TEXT, "type": OneOf("custom", "express", "standard")})
def create(call: Call) -> Thing:
    """Create an account that accepts transfers at once, without onboarding."""
    params = call.params
    account = call.state.add(
        {
            "id": new_id("acct", 16),
            "object": "account",
            "business_profile": params.get("business_profile", {}),
            "business_type": params.get("business_type"),
            "capabilities": dict.fromkeys(CAPABILITIES, "active"),
            "charges_enabled": True,
            "country": params.get("country", "US"),
            "created": call.state.now(),
            "default_currency": params.get("default_currency", "usd"),
            "details_submitted": True,
            "email": params.get("email"),
            "metadata": with_metadata({}, params.get("metadata", {})),
            "payouts_enabled": True,
            "requirements": {"currently_due": [], "disabled_reason": None, "past_due": []},
            "type": params.get("type", "express"),
        }
    )
    call.state.emit("account.updated", account)
    return account


@endpoint("GET", "/v1/account")
def own(call: Call) -> Thing:
    """The account of the API key."""
    return {
        "id": "acct_sandbox",
        "object": "account",
        "charges_enabled": True,
        "country": "US",
        "default_currency": "usd",
        "details_submitted": True,
        "payouts_enabled": True,
        "settings": {"dashboard": {"display_name": "Sandbox"}},
        "type": "standard",
    }


@endpoint("GET", "/v1/accounts/{}")
def retrieve(call: Call, name: str) -> Thing:
    return call.state.find("account", name, "account")


@endpoint("POST", "/v1/accounts/{}", ACCOUNT)
def update(call: Call, name: str) -> Thing:
    account, params = call.state.find("account", name, "account"), dict(call.params)
    for param in ("expand", "capabilities"):
        params.pop(param, None)
    if "metadata" in params:
        params["metadata"] = with_metadata(account["metadata"], params["metadata"])
    account.update(params)
    call.state.emit("account.updated", account)
    return call.state.save(account)


@endpoint("GET", "/v1/accounts", {**PAGE, "created": SPAN})
def list_all(call: Call) -> Thing:
    return listing(call.state, "account", "/v1/accounts", call.params)


@endpoint(
    "POST",
    "/v1/account_links",
    {"account": TEXT, "refresh_url": TEXT, "return_url": TEXT, "type": OneOf("account_onboarding", "account_update")},
)
def link(call: Call) -> Thing:
    """An account link that redirects back at once: there is no onboarding form."""
    require(call.params, "account", "type", "return_url")
    call.state.find("account", call.params["account"], "account", status=400)
    now = call.state.now()
    return {"object": "account_link", "created": now, "expires_at": now + 300, "url": call.params["return_url"]}


def _only(call: Call, *names: str) -> dict[str, Any]:
    return {name: call.params.get(name) for name in names}


@endpoint("GET", "/v1/transfers/{}")
def retrieve_transfer(call: Call, name: str) -> Thing:
    return call.state.find("transfer", name)


@endpoint("GET", "/v1/transfers", {**PAGE, "created": SPAN, "destination": TEXT, "transfer_group": TEXT})
def list_transfers(call: Call) -> Thing:
    return listing(call.state, "transfer", "/v1/transfers", call.params, **_only(call, "destination", "transfer_group"))


@endpoint("GET", "/v1/application_fees/{}")
def retrieve_fee(call: Call, name: str) -> Thing:
    return call.state.find("application_fee", name)


@endpoint("GET", "/v1/application_fees", {**PAGE, "created": SPAN, "charge": TEXT})
def list_fees(call: Call) -> Thing:
    return listing(call.state, "application_fee", "/v1/application_fees", call.params, **_only(call, "charge"))


def balance_of(state: State, account: str) -> int:
    """Balance of a connected account, in minor units."""
    given = sum(
        transfer["amount"] - transfer["amount_reversed"] for transfer in state.of("transfer", destination=account)
    )
    return given - sum(fee["amount"] - fee["amount_refunded"] for fee in state.of("application_fee", account=account))
