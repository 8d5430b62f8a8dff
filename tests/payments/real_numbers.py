"""Numbers as in the texts of real orders, and card numbers as people write them, from one seeded generator."""

import string
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random

SPACES = (" ", "\u00a0", "\n", "\r\n", "\t", "\u202f", "\u2009")
SEPARATORS = ("", "-", ".", "\u2011", "\u2013", " - ", *SPACES)


def digits(rng: Random, count: int) -> str:
    return "".join(rng.choices(string.digits, k=count))


def mod10(number: str, weights: tuple[int, int]) -> int:
    """The sum of digits times weights from the right; two-digit products count by their digits where the weight is 2."""
    total = 0
    for at, digit in enumerate(reversed(number)):
        product = int(digit) * weights[at % 2]
        total += product if 3 in weights else sum(divmod(product, 10))
    return total % 10


def mod11(number: str, highest: int) -> int:
    """Brazil's check digit: weights 2, 3, … from the right, beginning again after `highest`."""
    rest = sum(int(d) * (2 + at % (highest - 1)) for at, d in enumerate(reversed(number))) % 11
    return 0 if rest < 2 else 11 - rest


def checked(number: str, weights: tuple[int, int]) -> str:
    return number + str(-mod10(number + "0", (1, weights[0])) % 10)


def luhn(number: str) -> str:
    return checked(number, (2, 1))


def gs1(number: str) -> str:
    return checked(number, (3, 1))


def moment(rng: Random) -> datetime:
    return datetime(2015, 1, 1) + timedelta(seconds=rng.randrange(15 * 365 * 86400), microseconds=rng.randrange(10**6))


def day(rng: Random) -> str:
    return moment(rng).strftime(rng.choice(["%Y-%m-%d", "%d/%m/%Y", "%d.%m.%Y", "%Y%m%d", "%d-%m-%Y", "%d %m %Y"]))


# -- Boletos -------------------------------------------------------------------------------------------------------

BANKS = ("341", "341", "341", "001", "033", "104", "237", "260", "422", "748", "756", "077")


def boleto_fields(rng: Random) -> list[str]:
    """The typed line of a bank's boleto, cut where its points and spaces stand."""
    free = digits(rng, 25)
    due = str(rng.choice([rng.randrange(1000, 2200), rng.randrange(9000, 10000)]))
    amount = f"{rng.randrange(100, 10 ** rng.randrange(3, 9)):010d}"
    bank = rng.choice(BANKS) + "9"
    own = mod11(bank + due + amount + free, 9)
    first, second, third = (luhn(part) for part in (bank + free[:5], free[5:15], free[15:]))
    return [first[:5], first[5:], second[:5], second[5:], third[:5], third[5:], str(own or 1), due + amount]


def boleto(rng: Random) -> str:
    a, b, c, d, e, f, own, rest = boleto_fields(rng)
    return rng.choice(
        [
            f"{a}.{b} {c}.{d} {e}.{f} {own} {rest}",
            f"{a} {b} {c} {d} {e} {f} {own} {rest}",
            f"{a}{b} {c}{d} {e}{f} {own} {rest}",
            f"{a}.{b}\n{c}.{d}\n{e}.{f}\n{own}\n{rest}",
            f"{a}.{b}  {c}.{d}  {e}.{f}  {own}  {rest}",
            f"{a}.{b}-{c}.{d}-{e}.{f}-{own}-{rest}",
            f"{a}{b}{c}{d}{e}{f}{own}{rest}",
        ]
    )


def bill(rng: Random) -> str:
    """The line of a utility's bill: four times eleven digits with a check digit each."""
    fields = [luhn("8" + digits(rng, 10)), *(luhn(digits(rng, 11)) for _ in range(3))]
    return rng.choice(
        [
            " ".join(f"{one[:-1]}-{one[-1]}" for one in fields),
            " ".join(f"{one[:-1]} {one[-1]}" for one in fields),
            " ".join(fields),
            "".join(fields),
        ]
    )


def barcode(rng: Random) -> str:
    number = digits(rng, rng.randrange(44, 49))
    size = rng.choice([48, 48, 4, 5, 10, 11, 12])
    return " ".join(number[at : at + size] for at in range(0, len(number), size))


# -- People and companies ------------------------------------------------------------------------------------------


def phone(rng: Random) -> str:
    area = rng.choice(["11", "21", "31", "41", "47", "51", "61", "62", "62", "71", "81", "85", "91"])
    mobile, tail = f"9{rng.randrange(4000, 10000)}", digits(rng, 4)
    fixed = f"{rng.choice('2345')}{digits(rng, 3)}"
    return rng.choice(
        [
            f"{area} {mobile}-{tail}",
            f"({area}) {mobile}-{tail}",
            f"{area} {mobile} {tail}",
            f"{area}{mobile}{tail}",
            f"+55 {area} {mobile}-{tail}",
            f"55{area}{mobile}{tail}",
            f"{area} 9 {mobile[1:]}-{tail}",
            f"{area} {fixed}-{tail}",
            f"({area}) {fixed}-{tail}",
            f"0{area} {fixed} {tail}",
            f"+49 {rng.randrange(151, 180)} {digits(rng, 8)}",
            f"+1 {rng.randrange(201, 990)}-{rng.randrange(200, 999)}-{tail}",
        ]
    )


def phone_and_date(rng: Random) -> str:
    return f"Pedido {rng.randrange(1, 10 ** rng.randrange(2, 7))} tel {phone(rng)} {day(rng)}"


def cpf(rng: Random) -> str:
    number = digits(rng, 9)
    number += str(mod11(number, 11))
    number += str(mod11(number, 11))
    return rng.choice([number, f"{number[:3]}.{number[3:6]}.{number[6:9]}-{number[9:]}"])


def cnpj(rng: Random) -> str:
    number = digits(rng, 8) + f"{1 if rng.random() < 0.9 else rng.randrange(2, 100):04d}"
    number += str(mod11(number, 9))
    number += str(mod11(number, 9))
    return rng.choice([number, f"{number[:2]}.{number[2:5]}.{number[5:8]}/{number[8:12]}-{number[12:]}"])


def iban(rng: Random) -> str:
    country, bank, account = rng.choice(
        [("DE", "", 18), ("ES", "", 20), ("GB", "NWBK", 14), ("NL", "ABNA", 10), ("PT", "", 21), ("BE", "", 12),
         ("AT", "", 16), ("DK", "", 14), ("FI", "", 14), ("CH", "", 17), ("PL", "", 24), ("NO", "", 11)]
    )  # fmt: skip
    inner = bank + digits(rng, account)
    value = int("".join(str(int(c, 36)) for c in inner + country + "00"))
    number = f"{country}{98 - value % 97:02d}{inner}"
    grouped = " ".join(number[at : at + 4] for at in range(0, len(number), 4))
    return rng.choice(
        [
            number,
            grouped,
            grouped.lower(),
            grouped.replace(" ", "-"),
            f"IBAN {grouped} BIC COBADEFF{digits(rng, 3)}",
            f"{grouped} {digits(rng, 4)}",
            f"{number[2:4]} " + " ".join(number[at : at + 4] for at in range(4, len(number), 4))
            if country == "PL"
            else number,
        ]
    )


# -- Things --------------------------------------------------------------------------------------------------------


def gtin(rng: Random) -> str:
    prefix = rng.choice(["789", "789", "789", "790", "0", "3", "5", "6", "7", "8", "9", f"4{rng.randrange(10)}"])
    ean = gs1(prefix + digits(rng, 12 - len(prefix)))
    return rng.choice(
        [
            f"EAN {ean}",
            f"GTIN: {gs1(rng.choice('12345678') + ean[:12])}",
            f"ean={ean}",
            gs1("789" + digits(rng, 9)),
            gs1(digits(rng, 11)),
            gs1(digits(rng, 7)),
            f"{ean[0]} {ean[1:7]} {ean[7:]}",
        ]
    )


def order(rng: Random) -> str:
    at = moment(rng)
    return rng.choice(
        [
            f"{digits(rng, 3)}-{digits(rng, 7)}-{digits(rng, 7)}",
            f"20000{digits(rng, 11)}",
            f"#{digits(rng, rng.randrange(4, 11))}",
            f"{at:%Y}-{digits(rng, 6)}",
            f"{at:%Y%m%d}-{digits(rng, rng.randrange(4, 11))}",
            f"{at:%Y%m%d%H%M%S}{digits(rng, 4)}",
            f"GPA.{digits(rng, 4)}-{digits(rng, 4)}-{digits(rng, 4)}-{digits(rng, 5)}",
            f"PED-{digits(rng, 8)}/{at:%Y}",
            f"{digits(rng, 10)}-{digits(rng, 2)}",
            f"{digits(rng, 7)}-{digits(rng, 2)}.{at:%Y}.8.26.{digits(rng, 4)}",
            f"NF {digits(rng, 3)}.{digits(rng, 3)}.{digits(rng, 3)} serie {rng.randrange(1, 100)}",
        ]
    )


def timestamp(rng: Random) -> str:
    at = moment(rng)
    return rng.choice(
        [
            f"{at.timestamp() * 1000:.0f}", f"{at.timestamp() * 10**6:.0f}", f"{at.timestamp() * 10**9:.0f}",
            f"{at.timestamp():.6f}", at.isoformat(), f"{at:%Y%m%d%H%M%S}", f"{at:%Y%m%d%H%M%S%f}",
            f"{at:%Y-%m-%d %H:%M:%S.%f}", f"{at:%Y-%m-%d-%H-%M-%S}", f"{at:%d/%m/%Y %H:%M} {at:%y%m%d%H%M%S}",
        ]
    )  # fmt: skip


def identifier(rng: Random) -> str:
    one = uuid.UUID(int=rng.getrandbits(128), version=4)
    crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    return rng.choice(
        [
            str(one),
            one.hex,
            str(one).upper(),
            "01" + "".join(rng.choices(crockford, k=24)),
            f"{rng.getrandbits(256):064x}",
            f"{rng.getrandbits(160):040x}",
            f"pi_{''.join(rng.choices(string.ascii_letters + string.digits, k=24))}",
            repr(rng.random()),
            f"{rng.uniform(-90, 90):.7f},{rng.uniform(-180, 180):.7f}",
            f"{rng.uniform(-90, 90)}, {rng.uniform(-180, 180)}",
            repr(rng.uniform(0, 1000)),
            f"192.168.{rng.randrange(256)}.{rng.randrange(256)}",
        ]
    )


def tracking(rng: Random) -> str:
    usps = f"9{rng.choice(['400', '205', '361', '407', '303'])}{digits(rng, 18)}"
    return rng.choice(
        [
            f"{''.join(rng.choices(string.ascii_uppercase, k=2))}{digits(rng, 9)}BR",
            f"1Z{digits(rng, 6)}{digits(rng, 10)}",
            usps,
            " ".join(usps[at : at + 4] for at in range(0, 22, 4)),
            digits(rng, 12),
            f"{digits(rng, 4)} {digits(rng, 4)} {digits(rng, 4)}",
            f"JD01{digits(rng, 16)}",
            digits(rng, 10),
        ]
    )


def nfe(rng: Random) -> str:
    """The 44 digits that name a Brazilian invoice."""
    company = digits(rng, 8) + "0001" + digits(rng, 2)
    number = f"{rng.choice(['35', '33', '31', '52', '41', '43'])}{moment(rng):%y%m}{company}55001{digits(rng, 9)}1{digits(rng, 8)}"
    number += str(mod11(number, 9))
    return rng.choice([number, " ".join(number[at : at + 4] for at in range(0, 44, 4)), f"NFe{number}"])


def pix(rng: Random) -> str:
    ispb = rng.choice(["00000000", "60701190", "18236120", "90400888", "60746948", "30680829", "00360305", "13140088"])
    return f"E{ispb}{moment(rng):%Y%m%d%H%M}{''.join(rng.choices(string.ascii_letters + string.digits, k=11))}"


def money(rng: Random) -> str:
    return rng.choice(
        [f"R$ {rng.randrange(10**7):,}.{digits(rng, 2)}", f"{rng.randrange(10**5)},{digits(rng, 2)}", digits(rng, 3)]
    )


def account(rng: Random) -> str:
    return f"{rng.choice(BANKS)} ag {digits(rng, 4)}-{digits(rng, 1)} cc {digits(rng, rng.randrange(5, 9))}-{digits(rng, 1)}"


ALONE: list[Callable[[Random], str]] = [
    boleto, bill, barcode, phone, phone_and_date, cpf, cnpj, iban, gtin, order, timestamp, identifier, tracking, nfe, pix,
    money, account, day,
]  # fmt: skip


def beside_each_other(rng: Random) -> str:
    found = [rng.choice(ALONE)(rng) for _ in range(rng.randrange(2, 5))]
    return rng.choice([" ", " ", ", ", "; ", "\n", " / ", " - "]).join(found)


FORMS = [*ALONE, beside_each_other, beside_each_other]

# -- Cards ---------------------------------------------------------------------------------------------------------

ISSUED = {  # how the numbers of an issuer begin, and their lengths
    "Visa": (["4"], [13, 16, 19]),
    "Mastercard": (["51", "52", "53", "54", "55", "2221", "23", "26", "2720"], [16]),
    "American Express": (["34", "37"], [15]),
    "Diners": (["300", "305", "36", "38", "39"], [14, 16, 19]),
    "Discover": (["6011", "644", "649", "65"], [16, 19]),
    "JCB": (["3528", "3589"], [16, 19]),
    "UnionPay": (["62", "81"], [16, 17, 18, 19]),
    "Maestro": (["5018", "5020", "5038", "5893", "6304", "6759", "6761", "6763"], [13, 14, 15, 16, 17, 18, 19]),
    "Elo, Hipercard, Mir, Troy": (["5067", "509", "636297", "636368", "650", "6062", "2200", "9792"], [16]),
    "Hipercard": (["606282", "3841"], [16, 19]),
}


def card(rng: Random) -> str:
    prefixes, lengths = ISSUED[rng.choice(sorted(ISSUED))]
    prefix, length = rng.choice(prefixes), rng.choice(lengths)
    if prefix == "81":
        prefix = f"81{rng.randrange(10, 72)}"
    return luhn(prefix + digits(rng, length - 1 - len(prefix)))


def groupings(number: str) -> list[list[int]]:
    """How this card's number is printed or typed: in fours, in its issuer's own groups, in groups of one size."""
    found = [[4] * 5, [5] * 4, [3] * 7, [1] * 19]
    own = {13: [[4, 4, 5], [4, 3, 3, 3]], 14: [[4, 6, 4]], 15: [[4, 6, 5]], 19: [[6, 13]]}
    return found + own.get(len(number), [])


def written(rng: Random, number: str) -> str:
    separator, groups, at = rng.choice(SEPARATORS), [], 0
    for size in rng.choice(groupings(number)):
        groups.append(number[at : at + size])
        at += size
    return separator.join(group for group in groups if group)


def around(rng: Random, text: str) -> str:
    """The text that a card's number stands in."""
    month, year, code = f"{rng.randrange(1, 13):02d}", rng.randrange(2026, 2040), digits(rng, 3)
    return rng.choice(
        [
            text,
            f"paid with {text}.",
            f"card:{text}",
            f"({text})",
            f'{{"note": "{text}"}}',
            f"Pedido 77 cartao {text} obrigado",
            f"{text} {month}/{year % 100} {code}",
            f"{text} {month}/{year}",
            f"{text} {month}{year % 100} {code}",
            f"{text} {year}-{month}-15",
            f"{text} 15/{month}/{year}",
            f"{text} exp {month}-{year} cvc {code}",
            f"{text}, {code}",
            f"order 7 {text}",
            f"order 2026-000123 {text}",
            f"pm_{text}",
        ]
    )
