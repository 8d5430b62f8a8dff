"""Amounts as Stripe counts them. Its minor units are not everywhere those of ISO 4217 (https://docs.stripe.com/currencies)."""

from typing import Final

from payments.errors import AmountRefused
from payments.money import decimal_text, exponent, share

# What Stripe counts whole. UGX and ISK, which ISO counts whole, it counts in hundredths; MGA the other way round.
_WHOLE: Final = frozenset("BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF".split())
_THOUSANDTHS: Final = frozenset("BHD JOD KWD OMR TND".split())  # of which the last digit has to be zero


def stripe_exponent(currency: str) -> int:
    """How many decimals Stripe counts `currency` with."""
    return 0 if currency in _WHOLE else 3 if currency in _THOUSANDTHS else 2


def to_stripe(units: int, currency: str) -> int:
    """Our minor units as Stripe's. Raises AmountRefused (422) for what it cannot charge exactly."""
    surplus = stripe_exponent(currency) - exponent(currency)
    amount, rest = divmod(units * _tens(surplus), _tens(-surplus))
    if rest or (currency in _THOUSANDTHS and amount % 10):
        raise AmountRefused(f"Stripe cannot charge exactly {decimal_text(units, currency)} {currency}")
    return amount


def share_in_stripe(units: int, currency: str, parts_per_million: int) -> int:
    """A share of `units` in Stripe's minor units, rounded to what both can hold: what it keeps is what the ledger says."""
    least = 10 if currency in _THOUSANDTHS else _tens(exponent(currency) - stripe_exponent(currency))
    return to_stripe(share(units // least, parts_per_million) * least, currency)


def from_stripe(amount: int, currency: str) -> int:
    """Stripe's minor units as ours; what ours cannot hold is rounded."""
    surplus = exponent(currency) - stripe_exponent(currency)
    return amount * _tens(surplus) if surplus >= 0 else round(amount / _tens(-surplus))


def _tens(decimals: int) -> int:
    """So many of the smaller unit are one of the larger; 1 where there are no decimals between them."""
    return int(10 ** max(decimals, 0))
