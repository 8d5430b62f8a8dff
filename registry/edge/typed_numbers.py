"""Numbers typed by people, with separators of thousands and decimals. The JSON API accepts none of these."""

import re
import unicodedata
from decimal import Decimal

from django import forms
from django.core.exceptions import ValidationError

LONGEST = 40  # characters
EXAMPLE = "1500"  # taken by every currency

_parts = re.compile(r"(?P<sign>-?)(?P<whole>[0-9]+(?:[., '][0-9]+)*)")
_separator = re.compile(r"[., ']")
_thousands = re.compile(r"[1-9][0-9]{0,2}(?:x[0-9]{3})+")
_lakhs = re.compile(r"[1-9][0-9]?(?:x[0-9]{2})*x[0-9]{3}")  # India: 12,34,567
_dashes = str.maketrans({"\u2212": "-", "\u2019": "'", "\u02bc": "'"})


class Unclear(ValueError):
    """The text is no number, or is ambiguous. The message is for the person who typed it."""


def read(text: str, *, decimals: int, lakhs: bool = False) -> Decimal:
    """The number that a person means by `text`, with at most `decimals` decimals. Raises Unclear.

    Of two kinds of separators the last one is the decimal separator. A separator that occurs twice separates thousands, and
    so do spaces and apostrophes always. One point or comma before exactly three digits is ambiguous: the number is refused
    with both readings, except where there are no decimals, or three decimals and a point.
    """
    text = unicodedata.normalize("NFKC", text).translate(_dashes).strip()
    found = _parts.fullmatch(" ".join(text.split())) if len(text) <= LONGEST else None
    if found is None:
        raise Unclear(f"must be a number such as {EXAMPLE}")
    whole, fraction = _split(found["whole"], decimals=decimals, lakhs=lakhs)
    return Decimal(f"{found['sign']}{whole}{'.' if fraction else ''}{fraction}")


def _split(text: str, *, decimals: int, lakhs: bool) -> tuple[str, str]:
    """The digits before and after the decimal separator."""
    separators = _separator.findall(text)
    kinds = list(dict.fromkeys(separators))
    if not kinds:
        return _plain(text), ""
    *_, last = kinds
    decimal = last in ".," and separators.count(last) == 1
    if len(kinds) == 2 and decimal and separators[-1] == last:
        whole, _, fraction = text.rpartition(last)
        return _without(whole, kinds[0], lakhs=lakhs), _fraction(fraction, decimals)
    if len(kinds) > 1:
        raise Unclear("has separators that do not go together: write it without those of thousands")
    if not decimal:
        return _without(text, last, lakhs=lakhs), ""
    whole, _, fraction = text.partition(last)
    if len(fraction) == 3 and whole[0] != "0" and not (decimals == 3 and last == "."):
        if decimals:
            raise Unclear(_both(whole, fraction, decimals))
        return whole + fraction, ""
    return _plain(whole), _fraction(fraction, decimals)


def _both(whole: str, fraction: str, decimals: int) -> str:
    """The two readings of one separator before three digits."""
    thousands = f"{whole}{fraction}.{'0' * decimals}"
    decimal = f"{whole}.{fraction.rstrip('0').ljust(decimals, '0')}"
    return f"may mean {thousands} or {decimal}: write one of these"


def _plain(whole: str) -> str:
    if len(whole) > 1 and whole[0] == "0":
        raise Unclear(f"must be a number such as {EXAMPLE}")
    return whole


def _without(text: str, separator: str, *, lakhs: bool) -> str:
    """A whole number without its separators of thousands."""
    groups = text.replace(separator, "x")
    if not _thousands.fullmatch(groups) and not (lakhs and _lakhs.fullmatch(groups)):
        raise Unclear("has thousands that are not groups of three digits: write it without their separators")
    return groups.replace("x", "")


def _fraction(digits: str, decimals: int) -> str:
    if len(digits) > decimals:
        raise Unclear(
            f"has more than {decimals} decimals" if decimals else "has decimals; only whole numbers are taken"
        )
    return digits


class WholeNumberField(forms.IntegerField):
    """A form field for whole numbers: Django's own field reads "1.000" as 1."""

    widget = forms.TextInput(attrs={"inputmode": "numeric"})

    def to_python(self, value: object) -> int | None:
        if not isinstance(value, str) or value in self.empty_values:
            return super().to_python(value)
        try:
            number = read(value, decimals=2)  # so that one separator before three digits is refused with both readings
        except Unclear as error:
            raise ValidationError(f"“{value}” {error}.") from None
        if number.as_tuple().exponent != 0:
            raise ValidationError(f"“{value}” has decimals; only whole numbers are taken.")
        return super().to_python(str(number))
