"""Outcomes of Stripe's answers: states of intents and refunds, and errors. No I/O."""

from typing import Any, Final

import aiohttp
import stripe

from payments.processors.base import AMOUNT_DIFFERS, Account, Order, Outcome, Result
from payments.processors.stripe.amounts import from_stripe
from payments.processors.stripe.client import Unusable
from registry.errors import Problem
from registry.tenants.encryption import Sealed

LONGEST_RETRY_AFTER = 60.0  # seconds
# Refused because of the account: other payments would be refused too until somebody corrects it.
ACCOUNTS_FAULT: Final = frozenset(
    "account_closed account_country_invalid_address account_invalid api_key_expired livemode_mismatch "
    "platform_account_required platform_api_key_expired secret_key_required testmode_charges_only".split()
)
TROUBLE: Final = (  # all errors a request may raise; anything else is our own fault
    stripe.StripeError,
    aiohttp.ClientError,
    OSError,  # includes TimeoutError
    AttributeError,  # the answer has an unexpected shape
    KeyError,
    TypeError,
    ValueError,
    Unusable,
    Problem,
)


# -- Intents -------------------------------------------------------------------------------------------------


def next_step(intent: stripe.PaymentIntent, order: Order) -> str:
    """The next step of an intent on its way to a final state: confirm, capture, cancel, or nothing."""
    if intent.status in ("succeeded", "canceled", "processing"):
        return ""
    if order.canceling:
        return "cancel"
    method = order.method or {}
    if intent.status == "requires_capture":
        return "capture" if method.get("capture") else ""
    if method.get("paymentMethod"):
        if intent.status == "requires_confirmation":
            return "confirm"
        if intent.status == "requires_payment_method":
            return (
                "cancel"  # declined: the holder of its client secret must not be able to pay what we report as failed
            )
    return ""


def outcome_of(intent: stripe.PaymentIntent, order: Order, account: Account) -> Outcome:
    """The outcome of an intent that needs no further step."""
    if intent.status == "succeeded" and not _is_whole(intent, order):
        captured = {"type": "captured", "received": from_stripe(intent.amount_received, order.currency)}
        return Outcome(Result.UNKNOWN, code=AMOUNT_DIFFERS, reference=intent.id, action=captured)
    if intent.status == "succeeded":
        return Outcome(Result.BOOKED, code="succeeded", reference=intent.id, fee=fee_of(intent, order))
    if intent.status == "canceled":
        reason, error = getattr(intent, "cancellation_reason", None), getattr(intent, "last_payment_error", None)
        if reason == "abandoned" and (code := decline_code(error)):
            return Outcome(Result.DECLINED, code=code, reference=intent.id)
        return Outcome(Result.CANCELED, code=reason or "canceled", reference=intent.id)
    return Outcome(
        Result.REQUIRES_ACTION, code=intent.status, reference=intent.id, action=action_of(intent, order, account)
    )


def _is_whole(intent: stripe.PaymentIntent, order: Order) -> bool:
    """Whether the full amount was received: part of it may have been captured in Stripe's dashboard."""
    received = getattr(intent, "amount_received", None)
    return received is None or from_stripe(received, order.currency) == order.amount


def action_of(intent: stripe.PaymentIntent, order: Order, account: Account) -> dict[str, Any]:
    """The next action, for the payment page: {"type": "authenticate" | "capture" | "wait", …}."""
    if intent.status == "requires_capture":
        return {"type": "capture"}
    if intent.status == "processing":
        return {"type": "wait"}
    return {
        "type": "authenticate",
        "intent": intent.id,
        "clientSecret": intent.client_secret,
        "publishableKey": account.options.get("publishableKey", ""),
        "url": account.url,
        "needs": "authentication" if intent.status == "requires_action" else "method",
    }


def fee_of(intent: stripe.PaymentIntent, order: Order) -> int | None:
    """The fee in our minor units, if the answer has it: the application fee, else Stripe's own."""
    if (kept := getattr(intent, "application_fee_amount", None)) is not None:
        return from_stripe(kept, order.currency)
    charge = intent.latest_charge
    transaction = getattr(charge, "balance_transaction", None)
    if not isinstance(transaction, stripe.BalanceTransaction) or transaction.currency.upper() != order.currency:
        return None
    return from_stripe(transaction.fee, order.currency)


def decline_code(error: Any) -> str:
    """The decline code: "insufficient_funds" is more precise than "card_declined"."""
    return (getattr(error, "decline_code", None) or getattr(error, "code", None) or "") if error else ""


def labels(thing: Any) -> dict[str, str]:
    """The metadata of an intent or a refund; a StripeObject is no dict."""
    return thing.metadata.to_dict() if thing.metadata else {}


def is_replay(answer: stripe.StripeObject) -> bool:
    """Whether Stripe replayed a stored answer of this idempotency key, which may be outdated."""
    response = answer.last_response
    return response is not None and _header(response.headers, "idempotent-replayed") == "true"


# -- Errors --------------------------------------------------------------------------------------------------


def failure(error: Exception) -> Outcome:
    """The outcome of a request that failed with this error."""
    match error:
        case stripe.APIConnectionError() | aiohttp.ClientError() | OSError():
            return _without_response(error)
        case stripe.CardError():
            return Outcome(Result.DECLINED, code=decline_code(error.error) or error.code or "card_declined")
        case stripe.RateLimitError():
            return _away(code_of(error) or "rate_limit", retry_after=_seconds(_header(error.headers, "retry-after")))
        case stripe.AuthenticationError() | stripe.PermissionError():
            return _turned_away(code_of(error) or f"http_{error.http_status}")
        case stripe.IdempotencyError():  # the key was used with other parameters: this request was not carried out
            return Outcome(Result.NOT_BOOKED, code="idempotency_error")
        case stripe.InvalidRequestError():
            code = code_of(error)
            if code in ACCOUNTS_FAULT or (not code and error.http_status == 404):  # the URL itself does not exist
                return _turned_away(code or "http_404")
            return Outcome(Result.DECLINED, code=code or "invalid_request")
        case stripe.StripeError():
            if _header(error.headers, "idempotent-replayed") == "true":
                return Outcome(Result.NOT_BOOKED, code="replayed_error")  # a replayed answer: nothing was done now
            return Outcome(Result.UNKNOWN, code=code_of(error) or f"http_{error.http_status}", healthy=False)
        case Unusable() | Sealed():
            return _turned_away(str(error) if isinstance(error, Unusable) else "sealed")
        case Problem():  # our own validation, before anything was sent
            return Outcome(Result.DECLINED, code="amount_refused")
    return Outcome(Result.UNKNOWN, code="garbage", healthy=False)


def code_of(error: stripe.StripeError) -> str:
    """`error.error.code`; the library leaves `error.code` empty for some error classes."""
    return getattr(error.error, "code", None) or error.code or ""


def _without_response(error: Exception) -> Outcome:
    cause = error.__cause__ if isinstance(error, stripe.APIConnectionError) else error
    if isinstance(cause, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
        return _away("no_connection")
    code = "timeout" if isinstance(cause, TimeoutError) else type(cause).__name__
    return Outcome(Result.UNKNOWN, code=code, healthy=False)


def _away(code: str, *, retry_after: float = 0.0) -> Outcome:
    return Outcome(Result.NOT_BOOKED, code=code, healthy=False, outage=True, retry_after=retry_after)


def _turned_away(code: str) -> Outcome:
    """The account is unusable; its payments wait until somebody corrects it, as in an outage."""
    return Outcome(Result.NOT_BOOKED, code=code, turned_away=True, outage=True)


def _header(headers: Any, name: str) -> str:
    return next((value for key, value in dict(headers or {}).items() if key.lower() == name), "")


def _seconds(text: str) -> float:
    return min(float(text), LONGEST_RETRY_AFTER) if text.isdecimal() else 1.0
