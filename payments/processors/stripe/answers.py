"""What Stripe's answers prove: an intent's state, a refund's, an error's. No I/O: stripe.py and stripe_refunds.py ask."""

from typing import Any, Final

import aiohttp
import stripe

from payments.processors.base import AMOUNT_DIFFERS, Account, Order, Outcome, Result
from payments.processors.stripe.amounts import from_stripe
from payments.processors.stripe.client import Unusable
from registry.errors import Problem
from registry.tenants.encryption import Sealed

LONGEST_RETRY_AFTER = 60.0  # seconds
# The request was refused for the account's sake: another payment would be, too, until somebody puts that right.
ACCOUNTS_FAULT: Final = frozenset(
    "account_closed account_country_invalid_address account_invalid api_key_expired livemode_mismatch "
    "platform_account_required platform_api_key_expired secret_key_required testmode_charges_only".split()
)
TROUBLE: Final = (  # whatever a request may raise; anything else is a fault of ours
    stripe.StripeError,
    aiohttp.ClientError,
    OSError,  # TimeoutError too
    AttributeError,  # the answer is not what it should be
    KeyError,
    TypeError,
    ValueError,
    Unusable,
    Problem,
)


# -- Intents -------------------------------------------------------------------------------------------------


def next_step(intent: stripe.PaymentIntent, order: Order) -> str:
    """What has to be asked of the intent before its state means anything for us: confirm, capture, cancel, or nothing."""
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
            return "cancel"  # declined: whoever has its secret must not be able to pay what we call failed
    return ""


def outcome_of(intent: stripe.PaymentIntent, order: Order, account: Account) -> Outcome:
    """What an intent that needs no step of ours proves."""
    if intent.status == "succeeded" and not _is_whole(intent, order):
        return Outcome(Result.UNKNOWN, code=AMOUNT_DIFFERS, reference=intent.id)
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
    """Whether all was received: somebody may have captured a part of it in Stripe's dashboard."""
    received = getattr(intent, "amount_received", None)
    return received is None or from_stripe(received, order.currency) == order.amount


def action_of(intent: stripe.PaymentIntent, order: Order, account: Account) -> dict[str, Any]:
    """What is to be done, for the payment page: {"type": "authenticate" | "capture" | "wait", …}."""
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
    """What was kept, in our minor units, as far as the answer says: the application's fee, else Stripe's own."""
    if (kept := getattr(intent, "application_fee_amount", None)) is not None:
        return from_stripe(kept, order.currency)
    charge = intent.latest_charge
    transaction = getattr(charge, "balance_transaction", None)
    if not isinstance(transaction, stripe.BalanceTransaction) or transaction.currency.upper() != order.currency:
        return None
    return from_stripe(transaction.fee, order.currency)


def decline_code(error: Any) -> str:
    """Why a card was declined: "insufficient_funds" says more than "card_declined"."""
    return (getattr(error, "decline_code", None) or getattr(error, "code", None) or "") if error else ""


def labels(thing: Any) -> dict[str, str]:
    """The metadata of an intent or a refund; a StripeObject is no dict."""
    return thing.metadata.to_dict() if thing.metadata else {}


def is_replay(answer: stripe.StripeObject) -> bool:
    """Whether this is what was answered the first time, and may be old."""
    response = answer.last_response
    return response is not None and _header(response.headers, "idempotent-replayed") == "true"


# -- Errors --------------------------------------------------------------------------------------------------


def failure(error: Exception) -> Outcome:
    """What an error proves of the request that it answered."""
    match error:
        case stripe.APIConnectionError() | aiohttp.ClientError() | OSError():
            return _not_heard(error)
        case stripe.CardError():
            return Outcome(Result.DECLINED, code=decline_code(error.error) or error.code or "card_declined")
        case stripe.RateLimitError():
            return _away(code_of(error) or "rate_limit", retry_after=_seconds(_header(error.headers, "retry-after")))
        case stripe.AuthenticationError() | stripe.PermissionError():
            return _turned_away(code_of(error) or f"http_{error.http_status}")
        case stripe.IdempotencyError():  # the key was used with other content: whatever came of that, this was not done
            return Outcome(Result.NOT_BOOKED, code="idempotency_error")
        case stripe.InvalidRequestError():
            code = code_of(error)
            if code in ACCOUNTS_FAULT or (not code and error.http_status == 404):  # no such address at all
                return _turned_away(code or "http_404")
            return Outcome(Result.DECLINED, code=code or "invalid_request")
        case stripe.StripeError():
            if _header(error.headers, "idempotent-replayed") == "true":
                return Outcome(Result.NOT_BOOKED, code="replayed_error")  # the old answer: nothing was done now
            return Outcome(Result.UNKNOWN, code=code_of(error) or f"http_{error.http_status}", healthy=False)
        case Unusable() | Sealed():
            return _turned_away(str(error) if isinstance(error, Unusable) else "sealed")
        case Problem():  # the order itself, before anything was sent
            return Outcome(Result.DECLINED, code="amount_refused")
    return Outcome(Result.UNKNOWN, code="garbage", healthy=False)


def code_of(error: stripe.StripeError) -> str:
    """`error.error.code`; the library leaves `error.code` empty for some classes."""
    return getattr(error.error, "code", None) or error.code or ""


def _not_heard(error: Exception) -> Outcome:
    cause = error.__cause__ if isinstance(error, stripe.APIConnectionError) else error
    if isinstance(cause, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
        return _away("no_connection")
    code = "timeout" if isinstance(cause, TimeoutError) else type(cause).__name__
    return Outcome(Result.UNKNOWN, code=code, healthy=False)


def _away(code: str, *, retry_after: float = 0.0) -> Outcome:
    return Outcome(Result.NOT_BOOKED, code=code, healthy=False, outage=True, retry_after=retry_after)


def _turned_away(code: str) -> Outcome:
    """It is the account; its payments wait until somebody puts that right, as in an outage."""
    return Outcome(Result.NOT_BOOKED, code=code, turned_away=True, outage=True)


def _header(headers: Any, name: str) -> str:
    return next((value for key, value in dict(headers or {}).items() if key.lower() == name), "")


def _seconds(text: str) -> float:
    return min(float(text), LONGEST_RETRY_AFTER) if text.isdecimal() else 1.0
