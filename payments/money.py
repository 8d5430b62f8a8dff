"""Money as integers in minor units with an ISO 4217 currency. Formatting for people's eyes is Babel's."""

from decimal import Decimal
from typing import Final

from payments.errors import AmountRefused

# ISO 4217, active national currencies; those without two decimals are listed again below.
CURRENCIES: Final = frozenset(
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLF "
    "CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG "
    "HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA "
    "MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD "
    "RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX "
    "USD UYI UYU UYW UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG".split()
)
_EXPONENTS: Final = {
    **dict.fromkeys("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split(), 0),
    **dict.fromkeys("BHD IQD JOD KWD LYD OMR TND".split(), 3),
    **dict.fromkeys("CLF UYW".split(), 4),
}
LARGEST: Final = 10**15 - 1  # minor units; exact in every JSON reader (below 2^53)


def exponent(currency: str) -> int:
    """How many decimals `currency` has."""
    return _EXPONENTS.get(currency, 2)


def minor_units(amount: Decimal, currency: str) -> int:
    """`amount` in minor units of `currency`. Raises AmountRefused for what is not exactly representable or not positive."""
    digits = exponent(currency)
    sign, number, scale = amount.as_tuple()
    if not isinstance(scale, int):
        raise AmountRefused("must be a finite number")
    if sign or not any(number):
        raise AmountRefused("must be greater than zero")
    if amount.adjusted() > 15:  # before any arithmetic: 1e400 would become a number of 400 digits
        raise AmountRefused(f"must be at most {decimal_text(LARGEST, currency)}")
    if (surplus := -(scale + digits)) > 0:  # by digits: Decimal's arithmetic rounds to 28 of them
        if any(number[-surplus:]) or surplus >= len(number):
            raise AmountRefused(f"{currency} has {digits} decimals, no more")
        number, surplus = number[:-surplus], 0
    units = int("".join(map(str, number))) * 10**-surplus
    if units > LARGEST:
        raise AmountRefused(f"must be at most {decimal_text(LARGEST, currency)}")
    return units


def decimal_text(units: int, currency: str) -> str:
    """Minor units as the decimal text of contract section 2: 1990 BRL is "19.90"."""
    digits = exponent(currency)
    if not digits:
        return str(units)
    sign = "-" if units < 0 else ""
    whole, rest = divmod(abs(units), 10**digits)
    return f"{sign}{whole}.{rest:0{digits}d}"


def share(units: int, parts_per_million: int) -> int:
    """That part of `units`, rounded half up: 5 % (50,000 ppm) of 1990 is 100."""
    return (units * parts_per_million + 500_000) // 1_000_000
