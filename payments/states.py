"""The state table of a payment: the words, the arrows, and what each state looks like. All else is derived from it."""

from dataclasses import dataclass
from typing import Final

from django.db.models import TextChoices


class Status(TextChoices):
    """What a payment is, in the words of contract section 2."""

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
    # back to QUEUED: the processor said for certain that it did not book; to CANCELED: that it never will
    PROCESSING: frozenset({SUCCEEDED, FAILED, UNCERTAIN, QUEUED, REQUIRES_ACTION, CANCELED}),
    # to QUEUED only once the processor's longest delay has passed and it still knows nothing of the payment
    UNCERTAIN: frozenset({SUCCEEDED, FAILED, QUEUED, REQUIRES_ACTION, CANCELED}),
    REQUIRES_ACTION: frozenset({PROCESSING}),  # to be looked at again, whatever happened to it
    SUCCEEDED: frozenset(),
    FAILED: frozenset({QUEUED}),  # only an operator's replay of a dead letter
    CANCELED: frozenset(),
}
TERMINAL: Final = frozenset({SUCCEEDED, FAILED, CANCELED})
OPEN: Final = frozenset({QUEUED, PROCESSING, UNCERTAIN})  # a worker has something to do


def sources_of(target: Status) -> list[Status]:
    """The states from which an arrow leads to `target`."""
    return [source for source, targets in ARROWS.items() if target in targets]


@dataclass(frozen=True, slots=True)
class Look:
    """How a state is shown: never by colour alone."""

    shape: str
    colour: str  # name of the CSS custom property and class
    sentence: str  # plain language for the payer


LOOKS: Final[dict[Status, Look]] = {
    QUEUED: Look("○", "grey", "Accepted and waiting its turn."),
    PROCESSING: Look("◔", "blue", "On its way to the processor."),
    UNCERTAIN: Look(
        "◑", "amber", "The processor has not answered yet; we are asking it. You will not be charged twice."
    ),
    REQUIRES_ACTION: Look("◐", "violet", "Waiting for you to confirm the payment."),
    SUCCEEDED: Look("●", "green", "Booked."),
    FAILED: Look("✕", "red", "Not booked. No money has moved."),
    CANCELED: Look("–", "grey", "Canceled. No money has moved."),
}
