"""The banners of a payment: every rule, the most urgent first. No I/O."""

from collections.abc import Callable
from typing import Final

from payments.pages.explain.banner import Banner
from payments.pages.explain.before import requires_action, retrying, scheduled, uncertain, waiting
from payments.pages.explain.discrepancies import discrepancy
from payments.pages.explain.ended import closed, dead_letter, failed, partly_captured
from payments.pages.explain.reversed import disputed, refund_failed, refunded, refunding
from payments.pages.facts import PaymentFacts

RULES: Final[tuple[Callable[[PaymentFacts], Banner | None], ...]] = (
    partly_captured,
    dead_letter,
    discrepancy,
    disputed,
    refund_failed,
    requires_action,
    uncertain,
    waiting,
    retrying,
    scheduled,
    closed,
    failed,
    refunding,
    refunded,
)


def explain(facts: PaymentFacts, *, may_act: bool) -> list[Banner]:
    """The banners of a payment for members of its tenant; none for one that goes as expected."""
    found = [banner for rule in RULES if (banner := rule(facts))]
    return found if may_act else [banner.looked_at for banner in found]
