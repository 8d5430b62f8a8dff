"""Detection of card numbers in texts: card data goes to the processor only and is never stored here.

A card number is 13 to 19 digits with an issuer's prefix, the length that this issuer uses and a valid check digit (Luhn), in
one piece or in groups as cards are printed and typed, with one kind of separator. One random number of 16 digits in thirty
meets all of that, so other known formats (boletos, IBANs, UUIDs, company numbers) are removed first, and a part of a longer
row of equal groups does not count.
"""

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

CARD = "looks like a card number: card data goes to the processor only, and its id comes here"
SHORTEST, LONGEST = 13, 19  # digits of a card's number
EQUAL = (
    1,
    3,
    4,
    5,
)  # digits in groups of one size, of which the last may be shorter; pairs are clothing sizes and dates
PRINTED = {(4, 6, 5), (4, 6, 4), (4, 4, 5), (4, 3, 3, 3), (6, 13)}  # how issuers print numbers that have not 16 digits

BEGUN = {printed[:count] for printed in PRINTED for count in range(2, 5)}
LINES = {" ", "\n"}  # kinds of separators in a number on two lines

_separator = r"(?:\s{1,4}|\s{0,2}[-._/]\s{0,2})"
_run = re.compile(rf"[0-9](?:{_separator}?[0-9]){{{SHORTEST - 1},}}")
_group = re.compile(r"[0-9]+")
_gap = r"[\s._-]{0,3}"
_month, _day, _year = r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12][0-9]|3[01])", r"(?:19|20)[0-9]{2}"
_known = re.compile(
    r"\b[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\b"  # UUID
    rf"|(?<![0-9])[0-9]{{5}}{_gap}[0-9]{{5}}{_gap}[0-9]{{5}}{_gap}[0-9]{{6}}{_gap}[0-9]{{5}}{_gap}[0-9]{{6}}"
    rf"{_gap}[0-9]{_gap}[0-9]{{14}}(?![0-9])"  # boleto: 47 digits, typed in fields
    r"|\b1Z[0-9A-Z]{16}\b"  # UPS
    r"|(?<![0-9])9[1-6][0-9]{2}(?: ?[0-9]{4}){4} ?[0-9]{2}(?![0-9])"  # USPS
    # A fraction, of as many digits as a binary one of 64 bits has: coordinates, rates
    r"|(?<![0-9.])(?:0\.[0-9]+|(?:[0-9]\.[0-9]{2}|[0-9]{2}\.[0-9]|[0-9]{3}\.)[0-9]{5,14}(?![0-9]))"
    rf"|(?<![0-9])(?:{_year}(?P<by>[-./]){_month}(?P=by){_day}|{_day}(?P<of>[-./]){_month}(?P=of){_year})(?![0-9])",  # date
    re.IGNORECASE,
)
_iban = re.compile(r"\b(?P<country>[A-Z]{2})[0-9]{2}(?:[ .-]?[A-Z0-9]){11,30}", re.IGNORECASE)
_iban_lengths = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip
_product = re.compile(
    r"(?<![a-z])(?:ean|gtin|upc|sku|item)(?![a-z])|bar.?code|barras|produ[ckt]|article", re.IGNORECASE
)
# Numbers in the format of a card, with their lengths: they are accepted where the text names their kind.
_named = {
    re.compile(r"(?<![a-z])siret", re.IGNORECASE): {14},
    re.compile(r"(?<![a-z])imei", re.IGNORECASE): {15, 16},
    re.compile(r"(?<![a-z])clabe", re.IGNORECASE): {18},
}
_cnpj = re.compile(r"(?<![a-z])cnpj", re.IGNORECASE)
# After the last group: an expiry date, a security code (American Express: four digits), and no further digits.
_expiry = (
    rf"(?:{_separator}(?:{_month}{_separator}?/?{_separator}?(?:20)?[2-4][0-9]|20[2-4][0-9]{_separator}?/?{_month}))?"
)
_ending, _short_ending = (
    re.compile(rf"{_expiry}(?:{_separator}{code})?(?!{_separator}?[0-9])") for code in ("[0-9]{3,4}", "[0-9]{3}")
)
# Prefixes and lengths of issuers (ISO/IEC 7812). Other numbers in this format are taken for numbers of orders.
_issued = re.compile(
    r"4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})"  # Visa
    r"|5[0-8][0-9]{14}"  # Mastercard, Maestro, Elo, Aura
    r"|2(?:22[1-9]|2[3-9][0-9]|[3-6][0-9]{2}|7[01][0-9]|720)[0-9]{12}"  # Mastercard
    r"|220[0-4][0-9]{12,15}"  # Mir
    r"|6[02-57][0-9]{14}|6[2-57][0-9]{15,17}|6011[0-9]{13,15}|606282[0-9]{13}"  # Discover, UnionPay, Maestro, Elo, Hipercard, RuPay
    r"|8(?:1[1-6][0-9]|17[01]|2[0-9]{2})[0-9]{12}|81(?:[1-6][0-9]|7[01])[0-9]{13,15}"  # UnionPay, RuPay
    r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])[0-9]{9,15}"  # Maestro
    r"|50(?:6[01]|7[89])[0-9]{14,15}"  # Verve
    r"|3[47][0-9]{13}"  # American Express
    r"|35(?:2[89]|[3-8][0-9])[0-9]{12,15}|(?:2131|1800)[0-9]{11}"  # JCB
    r"|3(?:0[0-59][0-9]|[689][0-9]{2})(?:[0-9]{10}|[0-9]{12}|[0-9]{15})"  # Diners, Hipercard
    r"|(?:9792|9704|9860|8600)[0-9]{12}"  # Troy, Napas, Humo, Uzcard
)

# For the check digit (Luhn, ISO/IEC 7812-1): the value of a digit, and the sum of the digits of its double.
_once = bytes.maketrans(b"0123456789", bytes(range(10)))
_twice = bytes.maketrans(b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))


def holds_card(text: str) -> bool:
    """Whether the text contains a card number, whatever surrounds it."""
    if len(text) < SHORTEST:
        return False
    text = _plain(text)
    if not _run.search(text):
        return False
    text = "/".join(_without_ibans(_known.sub("/", text)))
    return any(_is_card(number, text) for run in _run.finditer(text) for number in _numbers(run, text))


def _plain(text: str) -> str:
    """The text with digits, spaces and dashes in ASCII, and without invisible characters."""
    if text.isascii():
        return text
    return "".join(map(_ascii, unicodedata.normalize("NFKC", text)))


def _ascii(character: str) -> str:
    if character.isascii():
        return character
    match unicodedata.category(character):
        case "Nd":
            return str(unicodedata.digit(character))
        case "Pd":
            return "-"
        case "Cf":
            return ""
    return {"\u2212": "-", "\u00b7": ".", "\u2022": "."}.get(character, character)


def _numbers(run: re.Match[str], text: str) -> Iterator[str]:
    """Candidates: the numbers of neighbouring groups in a run, if these are grouped like a card number.

    Cheap checks go first: a text of 64 KiB may be one run of single digits.
    """
    groups = list(_group.finditer(text, *run.span()))
    between = [_kind(text[left.end() : right.start()]) for left, right in pairwise(groups)]
    digits, sizes, start = "".join(group[0] for group in groups), [len(group[0]) for group in groups], 0
    alike = 0  # groups of the same size directly before the first one
    for first, size in enumerate(sizes):
        if SHORTEST <= size <= LONGEST:
            yield groups[first][0]
        alike = alike + 1 if _continues(groups, between, first) else 0
        if alike <= 1:  # else it is the middle of a longer row
            for last, length in _grouped(sizes, between, first):
                number = digits[start : start + length]
                if _is_issued(number) and _stands_alone(groups, between, first, last, text, alike=bool(alike)):
                    yield number
        start += size


def _grouped(sizes: list[int], between: list[str], first: int) -> Iterator[tuple[int, int]]:
    """The possible ends of a card number that begins with this group: the last group, and the number of digits.

    Cards have one kind of separator throughout; only a line may end between any two groups.
    """
    size = length = sizes[first]
    kinds = set(between[first : first + 1])
    if kinds & LINES:
        kinds = LINES
    uniform = size in EQUAL  # all groups so far have one size
    for last in range(first + 1, len(sizes)):
        length += sizes[last]
        if length > LONGEST or between[last - 1] not in kinds:
            return
        equal, uniform = uniform and sizes[last] <= size, uniform and sizes[last] == size
        if not equal and tuple(sizes[first : last + 1]) not in BEGUN:
            return
        if length >= SHORTEST and (equal or tuple(sizes[first : last + 1]) in PRINTED):
            yield last, length


def _continues(groups: list[re.Match[str]], between: list[str], at: int) -> bool:
    """Whether this group continues a row of groups of one size with one separator."""
    if not 0 < at < len(between):
        return False
    return len(groups[at - 1][0]) == len(groups[at][0]) and between[at - 1] == between[at]


def _kind(separator: str) -> str:
    return separator.strip() or ("\n" if "\n" in separator or "\r" in separator else " ")


def _stands_alone(
    groups: list[re.Match[str]], between: list[str], first: int, last: int, text: str, *, alike: bool
) -> bool:
    """Whether these groups are a complete number, not part of a longer one in groups of the same size.

    One group may precede them (the number of an order), and the expiry date and the security code may follow.
    """
    size, ends, mine = len(groups[first][0]), len(groups[last][0]), set(between[first:last])
    if first == 1 and between[0] in mine and text[groups[0].start() - 1 : groups[0].start()].isalpha():
        alike = True  # letters and digits together are the start of an IBAN
    if alike and (size in (3, 5) or [len(group[0]) for group in groups[first : last + 1]] == [4, 4, 5]):
        return False  # bank references are in groups of five; app stores number their orders 4-4-4-5
    follows = groups[last + 1] if last + 1 < len(groups) and between[last] in mine else None
    if follows is None or (not alike and ends >= size and len(follows[0]) != size):
        return True
    long_code = not alike or sum(len(group[0]) for group in groups[first : last + 1]) == 15
    ending = _ending if long_code else _short_ending
    return bool(ending.match(text, groups[last].end())) or (not alike and _another(groups[last + 1 : last + 6]))


def _another(groups: list[re.Match[str]]) -> bool:
    """Whether another card number follows directly, in groups of four, and no longer row of groups after that."""
    sizes = [len(group[0]) for group in groups]
    return sizes[:4] == [4] * 4 and sizes[4:] != [4] and _is_issued("".join(group[0] for group in groups[:4]))


def _is_card(number: str, text: str) -> bool:
    if not _is_issued(number) or _is_company(number, named=bool(_cnpj.search(text))):
        return False
    if _is_product(number) and _product.search(text):
        return False
    return not any(len(number) in lengths and name.search(text) for name, lengths in _named.items())


def _is_issued(number: str) -> bool:
    if not _issued.fullmatch(number):
        return False
    return (sum(number[-1::-2].encode().translate(_once)) + sum(number[-2::-2].encode().translate(_twice))) % 10 == 0


def _is_company(number: str, *, named: bool) -> bool:
    """Whether it is a Brazilian company number (CNPJ): 14 digits of which the last two are check digits. Unless the text
    says CNPJ (`named`), only numbers of a company's first nine branches count."""
    if len(number) != 14 or not (named or number[8:11] == "000"):
        return False
    digits = [int(digit) for digit in number]
    for length in (12, 13):
        rest = sum(digit * (2 + at % 8) for at, digit in enumerate(reversed(digits[:length]))) % 11
        if digits[length] != (0 if rest < 2 else 11 - rest):
            return False
    return True


def _is_product(number: str) -> bool:
    """Whether the check digit is that of an EAN-13 or GTIN-14. One in ten card numbers has it too: the text must name it."""
    if len(number) not in (13, 14):
        return False
    return sum(int(digit) * (3 if at % 2 else 1) for at, digit in enumerate(reversed(number))) % 10 == 0


def _without_ibans(text: str) -> Iterator[str]:
    """The parts of the text around IBANs."""
    kept = at = 0
    while found := _iban.search(text, at):
        at = found.start() + 2
        if end := _end_of_iban(found):
            yield text[kept : found.start()]
            kept = at = end
    yield text[kept:]


def _end_of_iban(found: re.Match[str]) -> int | None:
    """The end of an IBAN (ISO 13616), by its country's length; None if its check digits are wrong."""
    places = [at for at, character in enumerate(found[0], found.start()) if character.isalnum()]
    length = _iban_lengths.get(found["country"].upper(), len(places))
    if length > len(places) or found.string[places[length - 1] + 1 : places[length - 1] + 2].isalnum():
        return None
    number = [found.string[at] for at in places[:length]]
    if int("".join(str(int(character, 36)) for character in number[4:] + number[:4])) % 97 != 1:
        return None
    return places[length - 1] + 1
