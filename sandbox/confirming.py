"""State changes of a PaymentIntent: confirmed, authenticated by the payer, canceled."""

from collections.abc import Mapping
from typing import Any

from sandbox import charges
from sandbox.cards import CARDS, Card
from sandbox.errors import StripeError, declined, invalid
from sandbox.state import State, Thing, public

CONFIRMABLE = ("requires_payment_method", "requires_confirmation", "requires_action")
CANCELABLE = (*CONFIRMABLE, "requires_capture")


def confirm(state: State, intent: Thing, params: Mapping[str, Any]) -> Thing:
    """Charge the payment method, or require authentication. Raises StripeError if the card is declined."""
    if intent["status"] not in CONFIRMABLE:
        raise unexpected(intent, "could not be confirmed", CONFIRMABLE)
    if not intent["payment_method"]:
        raise without_method(payment_intent=public(intent))
    check_return_url(intent["automatic_payment_methods"], params)
    for name in ("setup_future_usage", "shipping", "receipt_email"):
        if name in params:
            intent[name] = params[name]
    method = state.find("payment_method", intent["payment_method"], "payment_method")
    card = CARDS[method["_card"]]
    off_session = params.get("off_session", False)
    if not _must_authenticate(card, intent) or (off_session and method.get("_authenticated")):
        return charges.charge(state, intent, card)
    if off_session or params.get("error_on_requires_action"):
        raise charges.refuse(
            state,
            intent,
            declined(
                "Your card was declined. This transaction requires authentication.",
                code="authentication_required",
                decline_code="authentication_required",
            ),
        )
    return _ask(state, intent, params.get("return_url"))


def without_method(**fields: Any) -> StripeError:
    return invalid(
        "You cannot confirm this PaymentIntent because it's missing a payment method. You can either update the "
        "PaymentIntent with a payment method and then confirm it again, or confirm it again directly with a payment "
        "method or ConfirmationToken.",
        code="payment_intent_unexpected_state",
        **fields,
    )


def check_return_url(automatic: Mapping[str, Any] | None, params: Mapping[str, Any]) -> None:
    """Raises StripeError if payment methods may redirect and there is no return URL."""
    redirects = automatic and automatic.get("allow_redirects", "always") == "always"
    if (
        redirects
        and not params.get("return_url")
        and not params.get("use_stripe_sdk")
        and not params.get("off_session")
    ):
        raise invalid(
            "This PaymentIntent is configured to accept payment methods enabled in your Dashboard. Because some of these "
            "payment methods might redirect your customer off of your page, you must provide a `return_url`. If you "
            "don't want to accept redirect-based payment methods, set `automatic_payment_methods[enabled]` to `true` "
            "and `automatic_payment_methods[allow_redirects]` to `never` when creating Setup Intents and Payment "
            "Intents.",
            param="return_url",
        )


def _must_authenticate(card: Card, intent: Thing) -> bool:
    wish = (intent["payment_method_options"].get("card") or {}).get("request_three_d_secure")
    return card.authenticate or wish in ("any", "challenge")


def _ask(state: State, intent: Thing, return_url: str | None) -> Thing:
    """The authentication page of the sandbox; without a return URL, Stripe.js would open it."""
    url = f"{state.url}/sandbox/3ds/{intent['id']}?client_secret={intent['client_secret']}"
    if return_url:
        action = {"type": "redirect_to_url", "redirect_to_url": {"url": url, "return_url": return_url}}
    else:
        action = {"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "three_d_secure_redirect", "stripe_js": url}}
    intent.update(status="requires_action", next_action=action, last_payment_error=None)
    state.emit("payment_intent.requires_action", intent)
    return state.save(intent)


def authenticate(state: State, intent: Thing, *, passed: bool) -> Thing:
    """Complete or fail the authentication. The result of the charge is the intent's new state; raises nothing."""
    if intent["status"] != "requires_action":
        return intent
    intent["next_action"] = None
    method = state.find("payment_method", intent["payment_method"])
    try:
        if not passed:
            raise charges.refuse(
                state,
                intent,
                invalid(
                    "We are unable to authenticate your payment method. Please choose a different payment method and "
                    "try again.",
                    code="payment_intent_authentication_failure",
                ),
            )
        method["_authenticated"] = bool(intent["setup_future_usage"])
        return charges.charge(state, intent, CARDS[state.save(method)["_card"]], authenticated=True)
    except StripeError:
        return intent


def cancel(state: State, intent: Thing, reason: str | None) -> Thing:
    if intent["status"] == "requires_capture":
        charges.release(state, intent)
    intent.update(
        status="canceled", canceled_at=state.now(), cancellation_reason=reason, next_action=None, amount_capturable=0
    )
    state.emit("payment_intent.canceled", intent)
    return state.save(intent)


def unexpected(intent: Thing, what: str, only: tuple[str, ...] = ()) -> StripeError:
    """Error 400: the intent's status does not allow the request."""
    allowed = f" Only a PaymentIntent with one of the following statuses may be: {', '.join(only)}." if only else ""
    return invalid(
        f"This PaymentIntent {what} because it has a status of {intent['status']}.{allowed}",
        code="payment_intent_unexpected_state",
        payment_intent=public(intent),
    )
