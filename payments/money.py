"""Money: integers in minor units with an ISO 4217 currency. Babel formats amounts for people."""

import re
import unicodedata
from decimal import Decimal, InvalidOperation
from typing import Final

from babel.numbers import get_currency_symbol

from payments.errors import AmountRefused
from registry.currencies import CURRENCIES as CURRENCIES
from registry.edge import typed_numbers

# Currencies of ISO 4217 that do not have two decimals.
_EXPONENTS: Final = {
    **dict.fromkeys("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split(), 0),
    **dict.fromkeys("BHD IQD JOD KWD LYD OMR TND".split(), 3),
    **dict.fromkeys("CLF UYW".split(), 4),
}
_LAKHS: Final = frozenset("INR PKR BDT NPR LKR".split())  # written 12,34,567
LARGEST: Final = 10**15 - 1  # minor units; exact in every JSON reader (below 2^53)


# Amounts as text have the form of JSON numbers: ASCII digits, no spaces, no plus, no separators.
PLAIN: Final = "^-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][-+]?[0-9]+)?$"
_plain = re.compile(PLAIN[1:-1])


def exponent(currency: str) -> int:
    """Number of decimals of `currency`."""
    return _EXPONENTS.get(currency, 2)


def currencies_with(decimals: int) -> list[str]:
    """The currencies that have this number of decimals, where it is not two."""
    return [currency for currency, digits in _EXPONENTS.items() if digits == decimals]


def read_amount(text: str) -> Decimal:
    """Parse an amount given as text. Raises AmountRefused for forms that Decimal would accept: "1_0", " 5", "１２"."""
    if not _plain.fullmatch(text):
        raise AmountRefused("must be a number such as 19.90, in plain digits")
    return read_number(text)


def read_number(text: str) -> Decimal:
    """Parse a JSON number exactly. An exponent beyond Decimal's range gives infinity, which is refused later."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal("Infinity")


def minor_units(amount: Decimal, currency: str) -> int:
    """Convert `amount` to minor units of `currency`. Raises AmountRefused if it is not positive or not exactly representable."""
    digits = exponent(currency)
    sign, number, scale = amount.as_tuple()
    if not isinstance(scale, int):
        raise AmountRefused("must be a finite number")
    if sign or not any(number):
        raise AmountRefused("must be greater than zero")
    if amount.adjusted() > 15:  # before any arithmetic: 1e400 would become an integer of 400 digits
        raise AmountRefused(f"must be at most {decimal_text(LARGEST, currency)}")
    if (surplus := -(scale + digits)) > 0:  # by digits: Decimal arithmetic rounds to 28 digits
        if any(number[-surplus:]) or surplus >= len(number):
            raise AmountRefused(f"{currency} has {digits} decimals, no more")
        number, surplus = number[:-surplus], 0
    units = int("".join(map(str, number))) * 10**-surplus
    if units > LARGEST:
        raise AmountRefused(f"must be at most {decimal_text(LARGEST, currency)}")
    return units


def typed_amount(text: str, currency: str) -> int:
    """Parse an amount typed by a person, with or without the currency, into minor units. Raises AmountRefused."""
    text = unicodedata.normalize("NFKC", text).strip()  # full-width digits
    for name in (currency, get_currency_symbol(currency, locale="en")):
        if (bare := text.removeprefix(name).removesuffix(name)) != text:
            text = bare.strip()
            break
    try:
        amount = typed_numbers.read(text, decimals=exponent(currency), lakhs=currency in _LAKHS)
    except typed_numbers.Unclear as error:
        raise AmountRefused(str(error)) from None
    return minor_units(amount, currency)


def decimal_text(units: int, currency: str) -> str:
    """Minor units as the decimal text of contract section 2: 1990 BRL is "19.90"."""
    digits = exponent(currency)
    if not digits:
        return str(units)
    sign = "-" if units < 0 else ""
    whole, rest = divmod(abs(units), 10**digits)
    return f"{sign}{whole}.{rest:0{digits}d}"


def grouped_text(units: int, currency: str) -> str:
    """For people who compare figures: 123456789 BRL is "1,234,567.89 BRL"."""
    return f"{Decimal(decimal_text(units, currency)):,f} {currency}"


def share(units: int, parts_per_million: int) -> int:
    """That part of `units`, rounded half up: 5 % (50,000 ppm) of 1990 is 100."""
    return (units * parts_per_million + 500_000) // 1_000_000
