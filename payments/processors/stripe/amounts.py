"""Amounts in Stripe's minor units, which differ from ISO 4217 for some currencies (https://docs.stripe.com/currencies)."""

from typing import Final

from payments.errors import AmountRefused
from payments.money import decimal_text, exponent, share

# Zero-decimal currencies of Stripe. UGX and ISK have no decimals in ISO 4217 but two at Stripe; MGA the reverse.
_WHOLE: Final = frozenset("BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF".split())
_THOUSANDTHS: Final = frozenset("BHD JOD KWD OMR TND".split())  # three decimals, of which the last must be zero


def stripe_exponent(currency: str) -> int:
    """Number of decimals Stripe uses for `currency`."""
    return 0 if currency in _WHOLE else 3 if currency in _THOUSANDTHS else 2


def to_stripe(units: int, currency: str) -> int:
    """Convert our minor units to Stripe's. Raises AmountRefused (422) if Stripe cannot charge the amount exactly."""
    surplus = stripe_exponent(currency) - exponent(currency)
    amount, rest = divmod(units * _tens(surplus), _tens(-surplus))
    if rest or (currency in _THOUSANDTHS and amount % 10):
        raise AmountRefused(f"Stripe cannot charge exactly {decimal_text(units, currency)} {currency}")
    return amount


def share_in_stripe(units: int, currency: str, parts_per_million: int) -> int:
    """A share of `units` in Stripe's minor units, rounded to what both can represent, so that Stripe's fee equals the ledger's."""
    least = 10 if currency in _THOUSANDTHS else _tens(exponent(currency) - stripe_exponent(currency))
    return to_stripe(share(units // least, parts_per_million) * least, currency)


def from_stripe(amount: int, currency: str) -> int:
    """Convert Stripe's minor units to ours, rounded where ours have fewer decimals."""
    surplus = exponent(currency) - stripe_exponent(currency)
    return amount * _tens(surplus) if surplus >= 0 else round(amount / _tens(-surplus))


def _tens(decimals: int) -> int:
    """The factor between two minor units; 1 if they are equal."""
    return int(10 ** max(decimals, 0))
