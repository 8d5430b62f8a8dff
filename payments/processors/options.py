"""The options of processors by kind: the label, meaning and kind of value of each, for forms. `Account.options` has their values."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

STRIPE: Final = frozenset({"stripe"})
SANDBOX: Final = frozenset({"sandbox"})


class Value(StrEnum):
    """How an option's value is entered and stored in JSON."""

    FLAG = "flag"  # true, or left out
    TEXT = "text"
    SHARE = "share"  # a number from 0 to 1
    SECONDS = "seconds"
    MILLISECONDS = "milliseconds"  # a whole number


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorOption:
    """One option. `kinds` is empty for an option that every kind has."""

    name: str  # in Processor.options
    value: Value
    label: str
    help: str
    kinds: frozenset[str] = frozenset()
    choices: tuple[tuple[str, str], ...] = ()  # of a text; the first is the default, which is not stored

    def fits(self, kind: str) -> bool:
        return not self.kinds or kind in self.kinds


OPTIONS: Final = (
    ProcessorOption(
        name="onlyByName",
        value=Value.FLAG,
        label="Only by name",
        help="Routing ignores it: only payments that name it use it.",
    ),
    ProcessorOption(
        name="longestDelay",
        value=Value.SECONDS,
        label="Longest delay",
        help="Seconds after which a payment that the processor does not know was certainly not booked. Empty: 120 for Stripe, else 30.",
    ),
    ProcessorOption(
        name="publishableKey",
        value=Value.TEXT,
        kinds=STRIPE,
        label="Publishable key",
        help="pk_…, sent to the payer's browser.",
    ),
    ProcessorOption(
        name="capture",
        value=Value.TEXT,
        kinds=STRIPE,
        label="Capture",
        help="Manual: amounts are authorized, and collected by POST /payments/{id}/capture.",
        choices=(("", "automatic"), ("manual", "manual")),
    ),
    ProcessorOption(
        name="account",
        value=Value.TEXT,
        kinds=STRIPE,
        label="Connected account of events",
        help="acct_…: only its events count, of an endpoint that receives those of connected accounts.",
    ),
    ProcessorOption(
        name="destination",
        value=Value.TEXT,
        kinds=STRIPE,
        label="Destination account",
        help="acct_…: the connected account that receives the payments.",
    ),
    ProcessorOption(
        name="applicationFee",
        value=Value.SHARE,
        kinds=STRIPE,
        label="Application fee",
        help="The platform's share of payments to the destination account: 0.05 is 5 %. Empty: the share of the tenant's plan.",
    ),
    ProcessorOption(
        name="delay",
        value=Value.MILLISECONDS,
        kinds=SANDBOX,
        label="Delay",
        help="Milliseconds before it answers.",
    ),
    ProcessorOption(
        name="decline",
        value=Value.SHARE,
        kinds=SANDBOX,
        label="Share declined",
        help="0.1 declines one payment of ten.",
    ),
    ProcessorOption(
        name="failing",
        value=Value.FLAG,
        kinds=SANDBOX,
        label="Simulate failures",
        help="It books nothing and answers with an error.",
    ),
    ProcessorOption(
        name="hang",
        value=Value.FLAG,
        kinds=SANDBOX,
        label="Simulate silence",
        help="It books, and never answers.",
    ),
    ProcessorOption(
        name="refundDecline",
        value=Value.SHARE,
        kinds=SANDBOX,
        label="Share of refunds declined",
        help="0.1 declines one refund of ten.",
    ),
    ProcessorOption(
        name="refundFailing",
        value=Value.FLAG,
        kinds=SANDBOX,
        label="Simulate failures of refunds",
        help="It refunds nothing and answers with an error.",
    ),
    ProcessorOption(
        name="refundHang",
        value=Value.FLAG,
        kinds=SANDBOX,
        label="Simulate silence of refunds",
        help="It refunds, and never answers.",
    ),
)
KNOWN: Final = frozenset(option.name for option in OPTIONS)
