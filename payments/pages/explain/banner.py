"""The explanation of one state of a payment, and the words that all of them share. No I/O."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from payments.money import decimal_text
from payments.pages.facts import PaymentFacts
from payments.templatetags.payments import money

DISPUTE_PAGE = "dispute_page"  # verb of the link to the dispute at its processor
REFUND_PAGE, PROCESSORS, PAYERS_PAGE, DISCREPANCIES_PAGE = "refund_page", "processors", "payers_page", "discrepancies"
LINKS: Final = frozenset(
    {DISPUTE_PAGE, REFUND_PAGE, PROCESSORS, PAYERS_PAGE, DISCREPANCIES_PAGE}
)  # they change nothing by themselves
FOR_ALL: Final = frozenset({PROCESSORS})  # offered to viewers too


@dataclass(frozen=True, slots=True)
class Offer:
    """An action of a banner: a link, or one that is confirmed with a reason (operate.py)."""

    verb: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """The explanation of one state."""

    state: str
    colour: str
    shape: str
    what: str  # one sentence: what happened
    money: str  # what that means for the money
    check: str = ""  # what to look at before acting
    at: datetime | None = None  # a date that belongs to it
    at_label: str = ""
    asked: int = 0  # look-ups at the processor
    asked_at: datetime | None = None  # the last one
    offers: tuple[Offer, ...] = ()

    @property
    def looked_at(self) -> "Banner":
        """For those who may not act: no actions, and nothing to check before them."""
        return replace(self, check="", offers=tuple(offer for offer in self.offers if offer.verb in FOR_ALL))


def of(units: int, currency: str) -> str:
    """An amount in words: R$19.90."""
    return money(decimal_text(units, currency), currency)


def amount_of(facts: PaymentFacts) -> str:
    return of(facts.amount, facts.currency)


def where(facts: PaymentFacts) -> str:
    return facts.processor or "the processor"


def named(text: str) -> str:
    """The beginning of a sentence. Names of processors keep their spelling."""
    return f"T{text[1:]}" if text == "the processor" else text


def asked(facts: PaymentFacts) -> dict[str, Any]:
    """How often the processor was asked about the last send."""
    return {"asked": facts.last.asked, "asked_at": facts.last.at} if facts.last and facts.last.asked > 0 else {}


def find(facts: PaymentFacts, then: str) -> str:
    """Where to look before acting."""
    reference = facts.last.reference if facts.last else ""
    return f"Look for {reference or 'this payment id'} in the books of {where(facts)}; {then}."
