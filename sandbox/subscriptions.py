"""Subscriptions: trial, active, past due, canceled; renewed when the clock passes the end of a period."""

from typing import Any

from sandbox import catalog, customers, invoices
from sandbox.endpoints import Call, endpoint
from sandbox.errors import declined, invalid
from sandbox.forms import FLAG, INTEGER, METADATA, PAGE, SPAN, TEXT, UNSETTABLE, Many, OneOf, require
from sandbox.state import State, Thing, listing, new_id, with_metadata

DAY = 86_400
OVER = ("canceled", "incomplete_expired")
INCOMPLETE_FOR = 23 * 3600  # seconds until an unpaid first invoice expires the subscription
NOTICE = 3 * DAY  # time of the trial_will_end event before the end
ITEM = {"price": TEXT, "quantity": INTEGER}
TRIAL_SETTINGS = {"end_behavior": {"missing_payment_method": OneOf("cancel", "create_invoice", "pause")}}
PRORATION = OneOf("always_invoice", "create_prorations", "none")
COMMON = {
    "cancel_at_period_end": FLAG,
    "default_payment_method": TEXT,
    "description": UNSETTABLE,
    "metadata": METADATA,
    "off_session": FLAG,
    "payment_behavior": OneOf("allow_incomplete", "default_incomplete", "error_if_incomplete"),
    "payment_settings": {"save_default_payment_method": OneOf("off", "on_subscription")},
    "proration_behavior": PRORATION,
    "trial_end": TEXT,
    "trial_settings": TRIAL_SETTINGS,
}


@endpoint(
    "POST",
    "/v1/subscriptions",
    {
        **COMMON,
        "items": Many(ITEM),
        "collection_method": OneOf("charge_automatically"),
        "customer": TEXT,
        "trial_period_days": INTEGER,
    },
)
def create(call: Call) -> Thing:
    state, params = call.state, call.params
    require(params, "customer", "items")
    subscription = make(state, params)
    if subscription["status"] == "incomplete" and params.get("payment_behavior") == "error_if_incomplete":
        state.remove(subscription)
        raise declined("Your card was declined.", code="card_declined", decline_code="generic_decline")
    return subscription


def make(state: State, params: Thing) -> Thing:
    """Create a subscription with a trial, or with a first invoice that is charged at once."""
    customer = state.find("customer", params["customer"], "customer", status=400)
    price = state.find("price", params["items"][0].get("price", ""), "items[0][price]", status=400)
    if not price["recurring"]:
        raise invalid(f"The price specified is set to `type=one_time`: {price['id']}.", param="items[0][price]")
    now, name = state.now(), new_id("sub")
    trial = _trial_end(params, now)
    end = trial or now + catalog.period(price)
    method = params.get("default_payment_method")
    if method:
        method = customers.usable_method(state, method, customer["id"])["id"]
    subscription = state.add(
        {
            "id": name,
            "object": "subscription",
            "billing_cycle_anchor": end if trial else now,
            "cancel_at": None,
            "cancel_at_period_end": params.get("cancel_at_period_end", False),
            "canceled_at": None,
            "collection_method": "charge_automatically",
            "created": now,
            "currency": price["currency"],
            "customer": customer["id"],
            "default_payment_method": method,
            "description": params.get("description"),
            "ended_at": None,
            "items": {
                "object": "list",
                "data": [_item(state, name, price, params["items"][0].get("quantity", 1), now, end)],
                "has_more": False,
                "url": f"/v1/subscription_items?subscription={name}",
            },
            "latest_invoice": None,
            "livemode": False,
            "metadata": with_metadata({}, params.get("metadata", {})),
            "pause_collection": None,
            "start_date": now,
            "status": "trialing" if trial else "incomplete",
            "trial_end": trial,
            "trial_settings": params.get("trial_settings")
            or {"end_behavior": {"missing_payment_method": "create_invoice"}},
            "trial_start": now if trial else None,
        }
    )
    invoice = _invoice(state, subscription, "subscription_create", 0 if trial else None)
    state.emit("customer.subscription.created", subscription)
    if params.get("payment_behavior") != "default_incomplete" or trial:
        collect(state, subscription, invoice)
    return state.save(subscription)


def _trial_end(params: Thing, now: int) -> int | None:
    if days := params.get("trial_period_days"):
        return int(now + days * DAY)
    text = params.get("trial_end")
    if text in (None, "now"):
        return None
    if not text.isdecimal() or int(text) <= now:
        raise invalid("Invalid timestamp: must be an integer Unix timestamp in the future.", param="trial_end")
    return int(text)


def _item(state: State, subscription: str, price: Thing, quantity: int, start: int, end: int) -> Thing:
    return {
        "id": new_id("si", 14),
        "object": "subscription_item",
        "created": state.now(),
        "current_period_end": end,
        "current_period_start": start,
        "metadata": {},
        "price": dict(price),
        "quantity": quantity,
        "subscription": subscription,
    }


def _invoice(state: State, subscription: Thing, reason: str, amount: int | None = None) -> Thing:
    item = subscription["items"]["data"][0]
    total = item["price"]["unit_amount"] * item["quantity"] if amount is None else amount
    start, end = item["current_period_start"], item["current_period_end"]
    return invoices.make(state, subscription, reason=reason, amount=total, start=start, end=end)


def method_of(state: State, subscription: Thing) -> str | None:
    """Its payment method: its own, else its customer's default."""
    customer = state.find("customer", subscription["customer"])
    method = subscription["default_payment_method"] or customer["invoice_settings"]["default_payment_method"]
    return str(method) if method else None


def collect(state: State, subscription: Thing, invoice: Thing, method: str | None = None) -> bool:
    """Charge an invoice and update the subscription. True if it is paid."""
    paid = invoices.pay(state, invoice, method or method_of(state, subscription))
    after_payment(state, subscription, paid=paid)
    return paid


def after_payment(state: State, subscription: Thing, *, paid: bool) -> None:
    before = subscription["status"]
    if before in OVER:
        return
    if paid and before in ("incomplete", "past_due", "unpaid"):
        subscription["status"] = "active"
    elif not paid and before in ("active", "trialing"):
        subscription["status"] = "past_due"
    if subscription["status"] != before:
        state.emit("customer.subscription.updated", state.save(subscription), previous={"status": before})


# -- Clock ----------------------------------------------------------------------------------------------


def advance(state: State) -> None:
    """Run what is due by the clock: trials end, periods are renewed, invoices are retried."""
    for subscription in list(state.kinds["subscription"].values()):
        while subscription["status"] not in OVER and _step(state, subscription):
            state.save(subscription)


def _step(state: State, subscription: Thing) -> bool:
    now, item = state.now(), subscription["items"]["data"][0]
    ending = subscription["status"] == "trialing" and subscription["trial_end"] - NOTICE <= now
    if ending and not subscription.get("_warned"):
        subscription["_warned"] = True
        state.emit("customer.subscription.trial_will_end", subscription)
        return True
    if subscription["status"] == "incomplete":
        return _expire(state, subscription)
    if subscription["status"] == "past_due" and (invoice := _open_invoice(state, subscription)):
        return _try_again(state, subscription, invoice)
    if item["current_period_end"] > now:
        return False
    renew(state, subscription)
    return True


def _expire(state: State, subscription: Thing) -> bool:
    if subscription["created"] + INCOMPLETE_FOR > state.now():
        return False
    subscription.update(status="incomplete_expired", ended_at=state.now())
    state.emit("customer.subscription.updated", subscription, previous={"status": "incomplete"})
    return True


def _try_again(state: State, subscription: Thing, invoice: Thing) -> bool:
    """Cancel the subscription after the last retry."""
    due = invoice["next_payment_attempt"]
    if due is None:
        end(state, subscription)
    elif due <= state.now():
        collect(state, subscription, invoice)
    return bool(due is None or due <= state.now())


def _open_invoice(state: State, subscription: Thing) -> Thing | None:
    name = subscription["latest_invoice"]
    invoice = state.kinds["invoice"].get(name) if name else None
    return invoice if invoice and invoice["status"] == "open" else None


def renew(state: State, subscription: Thing) -> None:
    """Start the next period, or end the subscription."""
    item = subscription["items"]["data"][0]
    if subscription["cancel_at_period_end"]:
        end(state, subscription)
        return
    trial = subscription["status"] == "trialing"
    missing = subscription["trial_settings"]["end_behavior"]["missing_payment_method"]
    if trial and missing == "cancel" and method_of(state, subscription) is None:
        end(state, subscription)
        return
    if trial:
        subscription["status"] = "active"
    start = min(item["current_period_end"], state.now())
    item.update(current_period_start=start, current_period_end=start + catalog.period(item["price"]))
    invoice = _invoice(state, subscription, "subscription_cycle")
    previous = {"status": "trialing"} if trial else {"latest_invoice": None}
    state.emit("customer.subscription.updated", state.save(subscription), previous=previous)
    collect(state, subscription, invoice)


def renew_now(state: State, subscription: Thing, *, paid: bool | None = None) -> Thing:
    """End the period now; `paid` overrides the result of the charge once. Raises StripeError."""
    if subscription["status"] in OVER:
        raise invalid("This subscription is over.")
    own = subscription["default_payment_method"]
    if paid is not None:
        card = "pm_card_visa" if paid else "pm_card_chargeCustomerFail"
        subscription["default_payment_method"] = customers.make_method(state, card)["id"]
    subscription["items"]["data"][0]["current_period_end"] = state.now()
    renew(state, subscription)
    subscription["default_payment_method"] = own
    return state.save(subscription)


def end(state: State, subscription: Thing) -> None:
    now = state.now()
    subscription.update(status="canceled", canceled_at=subscription["canceled_at"] or now, ended_at=now)
    state.emit("customer.subscription.deleted", state.save(subscription))


# -- API ------------------------------------------------------------------------------------


@endpoint("GET", "/v1/subscriptions/{}")
def retrieve(call: Call, name: str) -> Thing:
    return call.state.find("subscription", name)


@endpoint("POST", "/v1/subscriptions/{}", {**COMMON, "items": Many({**ITEM, "id": TEXT})})
def update(call: Call, name: str) -> Thing:
    state, subscription, params = call.state, call.state.find("subscription", name), dict(call.params)
    if subscription["status"] in OVER:
        raise invalid("A canceled subscription can only update its cancellation_details and metadata.")
    if "metadata" in params:
        subscription["metadata"] = with_metadata(subscription["metadata"], params["metadata"])
    if method := params.get("default_payment_method"):
        usable = customers.usable_method(state, method, subscription["customer"])
        subscription["default_payment_method"] = usable["id"]
    if (leaving := params.get("cancel_at_period_end")) is not None:
        subscription.update(cancel_at_period_end=leaving, canceled_at=state.now() if leaving else None)
    for wanted in params.get("items", [])[:1]:
        _change_item(state, subscription, wanted)
    state.emit("customer.subscription.updated", state.save(subscription))
    if params.get("trial_end") == "now" and subscription["status"] == "trialing":
        subscription["trial_end"] = subscription["items"]["data"][0]["current_period_end"] = state.now()
        renew(state, subscription)
    return subscription


def _change_item(state: State, subscription: Thing, wanted: Thing) -> None:
    """Change price or quantity from now on, without proration."""
    item = subscription["items"]["data"][0]
    if name := wanted.get("price"):
        item["price"] = dict(state.find("price", name, "items[0][price]", status=400))
    item["quantity"] = wanted.get("quantity", item["quantity"])


@endpoint("DELETE", "/v1/subscriptions/{}", {"invoice_now": FLAG, "prorate": FLAG})
def cancel(call: Call, name: str) -> Thing:
    subscription = call.state.find("subscription", name)
    if subscription["status"] in OVER:
        raise invalid(f"No such subscription: '{name}'", code="resource_missing", param="id")
    end(call.state, subscription)
    return subscription


STATUS = OneOf(
    "active", "all", "canceled", "ended", "incomplete", "incomplete_expired", "past_due", "trialing", "unpaid"
)


@endpoint("GET", "/v1/subscriptions", {**PAGE, "created": SPAN, "customer": TEXT, "price": TEXT, "status": STATUS})
def list_all(call: Call) -> Thing:
    wanted = call.params.get("status")
    only: dict[str, Any] = {"customer": call.params.get("customer")}

    def keep(subscription: Thing) -> bool:
        if wanted in (None, "all"):
            return wanted == "all" or subscription["status"] not in OVER
        return bool(subscription["status"] == wanted)

    return listing(call.state, "subscription", "/v1/subscriptions", call.params, keep, **only)
