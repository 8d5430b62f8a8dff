"""The state table of a refund: the words, the arrows, and what each state looks like. All else is derived from it."""

from typing import Final

from django.db.models import TextChoices

from payments.states import Look


class RefundStatus(TextChoices):
    """What a refund is: a debt to the payer, paid once."""

    OWED = "owed"
    PROCESSING = "processing"
    UNCERTAIN = "uncertain"
    RETURNED = "returned"
    FAILED = "failed"


OWED, PROCESSING, UNCERTAIN = RefundStatus.OWED, RefundStatus.PROCESSING, RefundStatus.UNCERTAIN
RETURNED, FAILED = RefundStatus.RETURNED, RefundStatus.FAILED

REFUND_ARROWS: Final[dict[RefundStatus, frozenset[RefundStatus]]] = {
    # straight to RETURNED or FAILED: the processor's word comes by webhook before a worker claims it
    OWED: frozenset({PROCESSING, RETURNED, FAILED}),
    # back to OWED: the processor said for certain that it gave nothing back
    PROCESSING: frozenset({RETURNED, FAILED, UNCERTAIN, OWED}),
    # to OWED only once the processor's longest delay has passed and it still knows nothing of the refund
    UNCERTAIN: frozenset({RETURNED, FAILED, OWED}),
    RETURNED: frozenset({FAILED}),  # the payer's bank sent it back: the processor has the money again
    FAILED: frozenset({RETURNED}),  # where we gave up and the processor did not
}
CLOSED: Final = frozenset({RETURNED, FAILED})

REFUND_LOOKS: Final[dict[RefundStatus, Look]] = {
    OWED: Look("○", "grey", "Owed: it waits to be given back."),
    PROCESSING: Look("◔", "blue", "The processor is giving it back."),
    UNCERTAIN: Look("◑", "amber", "The processor has not answered yet; we are asking it. Nothing is given back twice."),
    RETURNED: Look("●", "green", "Given back."),
    FAILED: Look("✕", "red", "Not given back."),
}
