"""Money in whole minor units: exactly representable amounts pass unchanged, others are refused."""

import json
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from payments.errors import AmountRefused
from payments.money import CURRENCIES, LARGEST, decimal_text, exponent, minor_units, read_amount, share

currencies = st.sampled_from(sorted(CURRENCIES))
amounts = st.decimals(allow_nan=True, allow_infinity=True) | st.from_regex(
    r"-?[0-9]{1,20}(\.[0-9]{1,40})?", fullmatch=True
).map(Decimal)


@given(units=st.integers(1, LARGEST), currency=currencies)
def test_every_amount_survives_the_way_to_text_and_back(units, currency):
    text = decimal_text(units, currency)

    assert minor_units(Decimal(text), currency) == units


@given(amount=amounts, currency=currencies)
@example(Decimal("19.9000000000000000000000000000000000001"), "BRL")
@example(Decimal("19.9" + "0" * 6000), "BRL")
@example(Decimal("1e-99999999"), "BRL")
@example(Decimal("1e400"), "BRL")
@example(Decimal("9999999999999.99"), "BRL")
@example(Decimal("10000000000000.00"), "BRL")
@example(Decimal("1.5E+3"), "JPY")
def test_an_amount_is_accepted_exactly_or_not_at_all(amount, currency):
    wanted = exactly(amount, currency)

    try:
        taken = minor_units(amount, currency)
    except AmountRefused:
        taken = None

    assert taken == wanted


@given(text=st.text() | st.text(alphabet="0123456789.-+_eE xX１٣\n", max_size=12))
@example("1_000")
@example("１２")
@example("+5")
@example(" 5")
@example("5\n")
@example("0x10")
@example("1e400")
@example("NaN")
@example("Infinity")
@example(".5")
@example("5.")
@example("")
def test_a_text_is_an_amount_only_if_json_would_take_it_for_a_number(text):
    wanted = json_number(text)

    try:
        read = read_amount(text)
    except AmountRefused:
        read = None

    assert read == wanted


def json_number(text: str) -> Decimal | None:
    """By Python's own reader, which has another author."""
    try:
        read = json.loads(text, parse_int=Decimal, parse_float=Decimal, parse_constant=lambda _: None)
    except ValueError:
        return None
    return read if isinstance(read, Decimal) and text == text.strip() else None


@given(units=st.integers(1, LARGEST), currency=currencies)
def test_every_amount_in_a_response_is_a_valid_amount(units, currency):
    text = decimal_text(units, currency)

    assert minor_units(read_amount(text), currency) == units


def exactly(amount: Decimal, currency: str) -> int | None:
    """The same by fractions, slow and without limits."""
    if not amount.is_finite() or abs(amount.adjusted()) > 500:
        return None
    units = Fraction(amount) * 10 ** exponent(currency)
    return int(units) if units.denominator == 1 and 1 <= units <= LARGEST else None


@given(units=st.integers(-LARGEST, LARGEST), currency=currencies)
def test_the_text_of_an_amount_has_the_decimals_of_its_currency(units, currency):
    text = decimal_text(units, currency)

    assert len(text.partition(".")[2]) == exponent(currency)
    assert Fraction(text) * 10 ** exponent(currency) == units


@given(units=st.integers(1, LARGEST), ppm=st.integers(0, 1_000_000))
def test_a_share_is_rounded_half_up_and_never_more_than_the_whole(units, ppm):
    part = share(units, ppm)

    assert 0 <= part <= units
    assert part == (Fraction(units * ppm, 1_000_000) + Fraction(1, 2)).__floor__()


@pytest.mark.parametrize(
    ("amount", "currency", "why"),
    [
        ("0", "BRL", "greater than zero"),
        ("-0.00", "BRL", "greater than zero"),
        ("-1", "BRL", "greater than zero"),
        ("NaN", "BRL", "finite"),
        ("sNaN", "BRL", "finite"),
        ("-Infinity", "BRL", "finite"),
        ("1.999", "BRL", "BRL has 2 decimals"),
        ("19.90", "JPY", "JPY has 0 decimals"),
        ("1.9999", "KWD", "KWD has 3 decimals"),
        ("1e400", "BRL", "at most 9999999999999.99"),
        ("1000000000000000", "JPY", "at most 999999999999999"),
    ],
)
def test_a_refused_amount_is_explained(amount, currency, why):
    with pytest.raises(AmountRefused) as refused:
        minor_units(Decimal(amount), currency)

    assert why in refused.value.detail


def test_every_amount_is_exact_for_readers_with_floating_point_numbers():
    assert LARGEST < 2**53
