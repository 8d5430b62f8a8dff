"""State machines of payments and refunds: states, allowed transitions, and how each state is shown. Nothing here reads a database."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from django.db.models import TextChoices


class Status(TextChoices):
    """State of a payment (contract section 2)."""

    QUEUED = "queued"
    PROCESSING = "processing"
    UNCERTAIN = "uncertain"
    REQUIRES_ACTION = "requires_action", "requires action"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


QUEUED, PROCESSING, UNCERTAIN = Status.QUEUED, Status.PROCESSING, Status.UNCERTAIN
REQUIRES_ACTION, SUCCEEDED, FAILED, CANCELED = Status.REQUIRES_ACTION, Status.SUCCEEDED, Status.FAILED, Status.CANCELED

ARROWS: Final[dict[Status, frozenset[Status]]] = {
    QUEUED: frozenset({PROCESSING, CANCELED}),
    # to QUEUED: the processor certainly did not book it; to CANCELED: it certainly never will
    PROCESSING: frozenset({SUCCEEDED, FAILED, UNCERTAIN, QUEUED, REQUIRES_ACTION, CANCELED}),
    # to QUEUED only after the processor's longest delay, if it still does not know the payment
    UNCERTAIN: frozenset({SUCCEEDED, FAILED, QUEUED, REQUIRES_ACTION, CANCELED}),
    REQUIRES_ACTION: frozenset({PROCESSING}),  # a worker asks the processor again
    SUCCEEDED: frozenset(),
    FAILED: frozenset({QUEUED}),  # only when an operator replays a dead letter
    CANCELED: frozenset(),
}
TERMINAL: Final = frozenset({SUCCEEDED, FAILED, CANCELED})
OPEN: Final = frozenset({QUEUED, PROCESSING, UNCERTAIN})  # a worker must act


def sources_of(target: Status) -> list[Status]:
    """The states that may change to `target`."""
    return [source for source, targets in ARROWS.items() if target in targets]


@dataclass(frozen=True, slots=True)
class Look:
    """How a state is shown: by shape and colour, never by colour alone."""

    shape: str
    colour: str  # name of the CSS custom property and class
    sentence: str  # plain language, until the page has read more


LOOKS: Final[dict[Status, Look]] = {
    QUEUED: Look("○", "grey", "The payment is accepted."),
    PROCESSING: Look("◔", "blue", "The payment is being processed."),
    UNCERTAIN: Look("◑", "amber", "It is not known yet whether the payment was booked."),
    REQUIRES_ACTION: Look("◐", "violet", "The payment waits for an action."),
    SUCCEEDED: Look("●", "green", "The payment succeeded."),
    FAILED: Look("✕", "red", "The payment failed."),
    CANCELED: Look("–", "grey", "The payment was canceled."),
}


# -- Shown states ------------------------------------------------------------------------------------------


class Reversal(TextChoices):
    """What took the money of a succeeded payment back. It is shown in place of `succeeded`; derived, never stored."""

    DISPUTED = "disputed"
    DISPUTE_LOST = "dispute_lost", "dispute lost"
    REFUNDED = "refunded"
    PARTLY_REFUNDED = "partly_refunded", "partly refunded"


type ShownState = Status | Reversal

REVERSAL_LOOKS: Final[dict[Reversal, Look]] = {
    Reversal.DISPUTED: Look("▲", "amber", "The payer's bank disputes this payment."),
    Reversal.DISPUTE_LOST: Look("▼", "red", "The payer's bank took the money back."),
    Reversal.REFUNDED: Look("↺", "grey", "Refunded in full."),
    Reversal.PARTLY_REFUNDED: Look("◕", "green", "Refunded in part."),
}
SHOWN_LOOKS: Final[dict[ShownState, Look]] = dict([*LOOKS.items(), *REVERSAL_LOOKS.items()])


def shown_state(
    status: str, *, amount: int | Decimal, refunded: int | Decimal, disputed: bool = False, lost: bool = False
) -> ShownState:
    """The state that a pill and a filter show: the status or, of a succeeded payment, its reversal.

    `disputed`: a dispute is open; `lost`: a closed one withholds money. A dispute comes first, because it has a deadline.
    """
    found = Status(status)
    if found is not SUCCEEDED:
        return found
    if disputed:
        return Reversal.DISPUTED
    if lost:
        return Reversal.DISPUTE_LOST
    if refunded <= 0:
        return found
    return Reversal.REFUNDED if refunded >= amount else Reversal.PARTLY_REFUNDED


def shown_as(value: str) -> ShownState:
    """The shown state of this value. Raises ValueError."""
    return Status(value) if value in Status.values else Reversal(value)


# -- Refunds -----------------------------------------------------------------------------------------------


class RefundStatus(TextChoices):
    """State of a refund (contract section 2)."""

    OWED = "owed"
    PROCESSING = "processing"
    UNCERTAIN = "uncertain"
    RETURNED = "returned"
    FAILED = "failed"


REFUND_ARROWS: Final[dict[RefundStatus, frozenset[RefundStatus]]] = {
    # to RETURNED or FAILED: a webhook reports the outcome before a worker claims the refund
    RefundStatus.OWED: frozenset({RefundStatus.PROCESSING, RefundStatus.RETURNED, RefundStatus.FAILED}),
    # to OWED: the processor certainly did not refund it
    RefundStatus.PROCESSING: frozenset(
        {RefundStatus.RETURNED, RefundStatus.FAILED, RefundStatus.UNCERTAIN, RefundStatus.OWED}
    ),
    # to OWED only after the processor's longest delay, if it still does not know the refund
    RefundStatus.UNCERTAIN: frozenset({RefundStatus.RETURNED, RefundStatus.FAILED, RefundStatus.OWED}),
    RefundStatus.RETURNED: frozenset({RefundStatus.FAILED}),  # the payer's bank rejected the money
    RefundStatus.FAILED: frozenset({RefundStatus.RETURNED}),  # we gave up, and the processor refunded it later
}
REFUND_TERMINAL: Final = frozenset({RefundStatus.RETURNED, RefundStatus.FAILED})

REFUND_LOOKS: Final[dict[RefundStatus, Look]] = {
    RefundStatus.OWED: Look("○", "grey", "Accepted: it waits to be refunded."),
    RefundStatus.PROCESSING: Look("◔", "blue", "The processor is refunding it."),
    RefundStatus.UNCERTAIN: Look(
        "◑", "amber", "The processor has not answered yet; we are asking it. Nothing is refunded twice."
    ),
    RefundStatus.RETURNED: Look("●", "green", "Refunded."),
    RefundStatus.FAILED: Look("✕", "red", "Not refunded."),
}
