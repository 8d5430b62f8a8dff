"""Stripe's test cards by their documented names, with the result of a charge."""

from typing import Any

import msgspec


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A test card and its behaviour."""

    label: str
    brand: str = "visa"
    last4: str = "4242"
    country: str = "US"
    authenticate: bool = False  # requires authentication every time
    code: str = ""  # decline code
    decline_code: str = ""
    message: str = "Your card was declined."
    dispute: str = ""  # reason of a dispute opened after the charge
    refund: str = "succeeded"  # status of its refunds: succeeded, pending (then succeeded), failed

    def details(self) -> dict[str, Any]:
        """The `card` object of a payment method."""
        return {
            "brand": self.brand,
            "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"},
            "country": self.country,
            "exp_month": 12,
            "exp_year": 2034,
            "fingerprint": f"fp{self.brand}{self.last4}",
            "funding": "credit",
            "generated_from": None,
            "last4": self.last4,
            "networks": {"available": [self.brand], "preferred": None},
            "three_d_secure_usage": {"supported": True},
            "wallet": None,
        }


def _declines(label: str, last4: str, decline_code: str, message: str = "Your card was declined.") -> Card:
    return Card(label=label, last4=last4, code="card_declined", decline_code=decline_code, message=message)


_SECURE = Card(label="asks for 3-D Secure", last4="3220", authenticate=True)
_DECLINED = _declines("is declined", "0002", "generic_decline")
_POOR = _declines("has insufficient funds", "9995", "insufficient_funds", "Your card has insufficient funds.")
_LOST = _declines("is lost", "9987", "lost_card")
_STOLEN = _declines("is stolen", "9979", "stolen_card")

CARDS: dict[str, Card] = {
    "pm_card_visa": Card(label="succeeds"),
    "pm_card_mastercard": Card(label="succeeds (Mastercard)", brand="mastercard", last4="4444"),
    "pm_card_amex": Card(label="succeeds (American Express)", brand="amex", last4="8431"),
    "pm_card_br": Card(label="succeeds (Brazil)", last4="0017", country="BR"),
    "pm_card_threeDSecure2Required": _SECURE,
    "pm_card_threeDSecureRequired": Card(label="asks for 3-D Secure (old)", last4="3063", authenticate=True),
    "pm_card_authenticationRequired": Card(label="asks for authentication", last4="3184", authenticate=True),
    "pm_card_threeDSecureRequiredChargeDeclined": Card(
        label="asks for 3-D Secure, then is declined",
        last4="8254",
        authenticate=True,
        code="card_declined",
        decline_code="generic_decline",
    ),
    "pm_card_chargeDeclined": _DECLINED,
    "pm_card_visa_chargeDeclined": _DECLINED,
    "pm_card_chargeDeclinedInsufficientFunds": _POOR,
    "pm_card_visa_chargeDeclinedInsufficientFunds": _POOR,
    "pm_card_chargeDeclinedLostCard": _LOST,
    "pm_card_visa_chargeDeclinedLostCard": _LOST,
    "pm_card_chargeDeclinedStolenCard": _STOLEN,
    "pm_card_visa_chargeDeclinedStolenCard": _STOLEN,
    "pm_card_chargeDeclinedExpiredCard": Card(
        label="has expired", last4="0069", code="expired_card", message="Your card has expired."
    ),
    "pm_card_chargeDeclinedIncorrectCvc": Card(
        label="has a wrong security code",
        last4="0127",
        code="incorrect_cvc",
        message="Your card's security code is incorrect.",
    ),
    "pm_card_chargeDeclinedProcessingError": Card(
        label="cannot be processed now",
        last4="0119",
        code="processing_error",
        message="An error occurred while processing your card. Try again in a little bit.",
    ),
    "pm_card_chargeCustomerFail": Card(
        label="can be saved, and is declined",
        last4="0341",
        code="card_declined",
        decline_code="generic_decline",
    ),
    "pm_card_createDispute": Card(label="is disputed (fraud)", last4="0259", dispute="fraudulent"),
    "pm_card_createProductNotReceived": Card(
        label="is disputed (nothing received)", last4="2685", dispute="product_not_received"
    ),
    "pm_card_pendingRefund": Card(label="is refunded late", last4="7726", refund="pending"),
    "pm_card_refundFail": Card(label="cannot be refunded", last4="5126", refund="failed"),
}
