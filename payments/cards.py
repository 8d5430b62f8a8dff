"""Whether a text holds a card's number: such data goes to the processor only, and comes no further than our door."""

import re
from itertools import accumulate

CARD = "looks like a card number: card data goes to the processor only, and its id comes here"
LENGTHS = (14, 15, 16, 17, 18, 19)  # digits; cards of 13 are issued no more, and telephones and barcodes have as many

# Digits in groups. Which groups are the number is tried out: an expiry, a CVC or an order's number may stand beside it.
_run = re.compile(r"(?<![0-9])[0-9](?:[ \u00a0.-]?[0-9]){13,}(?![0-9])")
_group = re.compile(r"[0-9]+")
_uuid = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE)
# How issuers' numbers begin (ISO/IEC 7812), with their lengths: what only looks like one is an order's number to us.
_issued = re.compile(
    r"4(?:[0-9]{15}|[0-9]{18})"  # Visa
    r"|5[0-9]{15}"  # Mastercard, Elo
    r"|2(?:20[0-4]|22[1-9]|2[3-9][0-9]|[3-6][0-9]{2}|7[01][0-9]|720)[0-9]{12}"  # Mir, Mastercard
    r"|6[0-9]{15}|6[237][0-9]{15,17}"  # Discover, UnionPay, Maestro, Elo, Hipercard
    r"|3[47][0-9]{13}"  # American Express
    r"|35[2-8][0-9](?:[0-9]{12}|[0-9]{15})"  # JCB
    r"|3(?:0[0-5][0-9]|[689][0-9]{2})[0-9]{10}"  # Diners
)


def holds_card(text: str) -> bool:
    """Whether there is a card's number in it, whatever stands around it: its length, its beginning, its check digit."""
    if not _run.search(text):
        return False
    return any(_among(_group.findall(run[0])) for run in _run.finditer(_uuid.sub("/", text)))


def _among(groups: list[str]) -> bool:
    """Whether some of these neighbours make a number together."""
    for first in range(len(groups)):
        for number in accumulate(groups[first:]):
            if len(number) > LENGTHS[-1]:
                break
            if len(number) in LENGTHS and _is_card(number):
                return True
    return False


def _is_card(number: str) -> bool:
    if not _issued.fullmatch(number) or (number[8:11] == "000" and len(number) == 14):  # a Brazilian company's number
        return False
    digits = [int(digit) for digit in number]
    return (sum(sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]) + sum(digits[-1::-2])) % 10 == 0
