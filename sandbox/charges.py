"""Charges and their balance transactions: captured, authorized, released, declined."""

from typing import Any

from sandbox.cards import CARDS, Card
from sandbox.endpoints import Call, endpoint
from sandbox.errors import StripeError, declined
from sandbox.forms import METADATA, PAGE, SPAN, TEXT, UNSETTABLE
from sandbox.state import State, Thing, listing, new_id, public, with_metadata

DAY = 24 * 3600


def charge(state: State, intent: Thing, card: Card, *, authenticated: bool = False) -> Thing:
    """Charge the intent, or authorize it for a later capture. Raises StripeError if the card is declined."""
    if card.code:
        error = declined(card.message, code=card.code, decline_code=card.decline_code or None)
        raise refuse(state, intent, error, _charge(state, intent, card, authenticated, error))
    made = _charge(state, intent, card, authenticated)
    intent.update(latest_charge=made["id"], last_payment_error=None, next_action=None)
    if intent["capture_method"] == "manual":
        made["captured"] = False
        intent.update(status="requires_capture", amount_capturable=intent["amount"])
        state.emit("charge.succeeded", made)
        state.emit("payment_intent.amount_capturable_updated", intent)
    else:
        _book(state, intent, made, intent["amount"])
        state.emit("charge.succeeded", made)
        _succeed(state, intent, intent["amount"])
    if card.dispute:
        made["_steps"] = [*made.get("_steps", ()), "dispute"]
    return state.save(intent)


def _charge(state: State, intent: Thing, card: Card, authenticated: bool, error: StripeError | None = None) -> Thing:
    secure = {"authentication_flow": "challenge", "result": "authenticated", "version": "2.2.0"}
    fields = error.fields if error else {}
    method = state.find("payment_method", intent["payment_method"])
    return state.add(
        {
            "id": new_id("ch"),
            "object": "charge",
            "amount": intent["amount"],
            "amount_captured": 0,
            "amount_refunded": 0,
            "application_fee": None,
            "application_fee_amount": intent["application_fee_amount"],
            "balance_transaction": None,
            "billing_details": method["billing_details"],
            "captured": error is None,
            "created": state.now(),
            "currency": intent["currency"],
            "customer": intent["customer"],
            "description": intent["description"],
            "destination": (intent["transfer_data"] or {}).get("destination"),
            "dispute": None,
            "disputed": False,
            "failure_balance_transaction": None,
            "failure_code": fields.get("code"),
            "failure_message": fields.get("message"),
            "livemode": False,
            "metadata": dict(intent["metadata"]),
            "on_behalf_of": intent["on_behalf_of"],
            "outcome": {
                "network_status": "declined_by_network" if error else "approved_by_network",
                "reason": fields.get("decline_code"),
                "risk_level": "normal",
                "seller_message": "The bank declined the payment." if error else "Payment complete.",
                "type": "issuer_declined" if error else "authorized",
            },
            "paid": error is None,
            "payment_intent": intent["id"],
            "payment_method": method["id"],
            "payment_method_details": {
                "type": "card",
                "card": {**card.details(), "three_d_secure": secure if authenticated else None},
            },
            "receipt_email": intent["receipt_email"],
            "receipt_number": None,
            "receipt_url": None,
            "refunded": False,
            "review": None,
            "source_transfer": None,
            "statement_descriptor": intent["statement_descriptor"],
            "statement_descriptor_suffix": intent["statement_descriptor_suffix"],
            "status": "failed" if error else "succeeded",
            "transfer": None,
            "transfer_data": intent["transfer_data"],
            "transfer_group": intent["transfer_group"],
            "_card": method["_card"],
        }
    )


def _book(state: State, intent: Thing, made: Thing, amount: int) -> Thing:
    """Write the balance transaction; with asynchronous capture it is added to the charge a little later."""
    made.update(captured=True, amount_captured=amount)
    if intent["capture_method"] == "automatic_async":
        made["_steps"] = ["balance"]
    else:
        add_to_balance(state, made)
    if destination := made["destination"]:
        _pass_on(state, intent, made, destination, amount)
    return state.save(made)


def settle_late(state: State, made: Thing) -> None:
    add_to_balance(state, made)
    state.emit("charge.updated", made, previous={"balance_transaction": None})


def add_to_balance(state: State, made: Thing) -> None:
    amount = made["amount_captured"]
    booked = transaction(state, made, "charge", amount, fee=(amount * 29 + 500) // 1000 + 30)
    made["balance_transaction"] = booked["id"]


def _pass_on(state: State, intent: Thing, made: Thing, destination: str, amount: int) -> None:
    """Transfer of a destination charge: the amount less the application fee goes to the connected account."""
    wanted = intent["transfer_data"].get("amount")
    transfer = state.add(
        {
            "id": new_id("tr"),
            "object": "transfer",
            "amount": amount if wanted is None else min(wanted, amount),
            "amount_reversed": 0,
            "created": state.now(),
            "currency": made["currency"],
            "destination": destination,
            "livemode": False,
            "metadata": {},
            "reversed": False,
            "source_transaction": made["id"],
            "source_type": "card",
            "transfer_group": made["transfer_group"],
        }
    )
    transfer["balance_transaction"] = transaction(state, transfer, "transfer", -transfer["amount"])["id"]
    made["transfer"] = transfer["id"]
    state.emit("transfer.created", transfer)
    if share := made["application_fee_amount"]:
        fee = state.add(
            {
                "id": new_id("fee"),
                "object": "application_fee",
                "account": destination,
                "amount": share,
                "amount_refunded": 0,
                "charge": made["id"],
                "created": state.now(),
                "currency": made["currency"],
                "livemode": False,
                "refunded": False,
            }
        )
        fee["balance_transaction"] = transaction(state, fee, "application_fee", share)["id"]
        made["application_fee"] = fee["id"]
        state.emit("application_fee.created", fee)


def _succeed(state: State, intent: Thing, amount: int) -> None:
    intent.update(status="succeeded", amount_received=amount, amount_capturable=0)
    state.emit("payment_intent.succeeded", state.save(intent))


def capture(state: State, intent: Thing, amount: int) -> Thing:
    """Capture `amount` of the authorization; the rest is released."""
    held = state.find("charge", intent["latest_charge"])
    _book(state, intent, held, amount)
    held["amount_refunded"] = held["amount"] - amount
    state.emit("charge.captured", held)
    _succeed(state, intent, amount)
    return state.save(held)


def release(state: State, intent: Thing) -> None:
    held = state.find("charge", intent["latest_charge"])
    held.update(amount_refunded=held["amount"], refunded=True)
    state.emit("charge.refunded", state.save(held))


def refuse(state: State, intent: Thing, error: StripeError, failed: Thing | None = None) -> StripeError:
    """Record the decline; the caller raises the returned error."""
    method = state.find("payment_method", intent["payment_method"])
    if failed:
        intent["latest_charge"] = error.fields["charge"] = failed["id"]
        state.emit("charge.failed", failed)
    error.fields["payment_method"] = public(method)
    intent.update(
        status="requires_payment_method",
        payment_method=None,
        next_action=None,
        last_payment_error=public(error.body()["error"]),
    )
    state.emit("payment_intent.payment_failed", state.save(intent))
    error.fields["payment_intent"] = public(intent)
    return error


def transaction(state: State, source: Thing, type_: str, amount: int, *, fee: int = 0) -> Thing:
    """Create a balance transaction; `amount` is negative for money going out."""
    details = [
        {"amount": fee, "application": None, "currency": source["currency"], "description": "Stripe processing fees",
         "type": "stripe_fee"}
    ]  # fmt: skip
    return state.add(
        {
            "id": new_id("txn"),
            "object": "balance_transaction",
            "amount": amount,
            "available_on": state.now() + 2 * DAY,
            "created": state.now(),
            "currency": source["currency"],
            "description": source.get("description"),
            "exchange_rate": None,
            "fee": fee,
            "fee_details": details if fee else [],
            "net": amount - fee,
            "reporting_category": {"adjustment": "dispute"}.get(type_, type_),
            "source": source["id"],
            "status": "pending",
            "type": type_,
        }
    )


def card_of(made: Thing) -> Card:
    return CARDS[made["_card"]]


# -- API ------------------------------------------------------------------------------------


@endpoint("GET", "/v1/charges/{}")
def retrieve(call: Call, name: str) -> Thing:
    return call.state.find("charge", name, "id")


@endpoint("POST", "/v1/charges/{}", {"description": UNSETTABLE, "metadata": METADATA, "receipt_email": TEXT})
def update(call: Call, name: str) -> Thing:
    found, params = call.state.find("charge", name), dict(call.params)
    params.pop("expand", None)
    if "metadata" in params:
        params["metadata"] = with_metadata(found["metadata"], params["metadata"])
    found.update(params)
    return call.state.save(found)


@endpoint("GET", "/v1/charges", {**PAGE, "created": SPAN, "customer": TEXT, "payment_intent": TEXT})
def list_all(call: Call) -> Thing:
    only: dict[str, Any] = {name: call.params.get(name) for name in ("customer", "payment_intent")}
    return listing(call.state, "charge", "/v1/charges", call.params, **only)


@endpoint("GET", "/v1/balance_transactions/{}")
def retrieve_transaction(call: Call, name: str) -> Thing:
    return call.state.find("balance_transaction", name)


@endpoint("GET", "/v1/balance_transactions", {**PAGE, "created": SPAN, "source": TEXT, "type": TEXT, "currency": TEXT})
def list_transactions(call: Call) -> Thing:
    only: dict[str, Any] = {name: call.params.get(name) for name in ("source", "type", "currency")}
    return listing(call.state, "balance_transaction", "/v1/balance_transactions", call.params, **only)


@endpoint("GET", "/v1/balance")
def balance(call: Call) -> Thing:
    totals: dict[str, int] = {}
    for line in call.state.kinds["balance_transaction"].values():
        totals[line["currency"]] = totals.get(line["currency"], 0) + line["net"]
    pending = [{"amount": total, "currency": currency} for currency, total in totals.items()]
    return {"object": "balance", "available": [], "livemode": False, "pending": pending}
