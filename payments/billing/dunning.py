"""Dunning: the steps that follow from a subscription's state, from reminders to refused payments, and back. No I/O."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from payments.models import Subscription
from payments.models.billing import Dunning, Paid

# All transitions. A payment ends dunning at once, from every step.
ARROWS: Final[dict[Dunning, frozenset[Dunning]]] = {
    Dunning.NONE: frozenset({Dunning.NOTICE, Dunning.REFUSED, Dunning.SUSPENDED}),
    Dunning.NOTICE: frozenset({Dunning.NONE, Dunning.REFUSED, Dunning.SUSPENDED}),
    Dunning.REFUSED: frozenset({Dunning.NONE, Dunning.NOTICE, Dunning.SUSPENDED}),
    Dunning.SUSPENDED: frozenset({Dunning.NONE, Dunning.NOTICE, Dunning.REFUSED}),
}

# Stripe's subscription status → ours. A subscription that was never paid counts as unpaid.
STRIPE: Final[dict[str, Paid]] = {
    "trialing": Paid.TRIALING,
    "active": Paid.ACTIVE,
    "past_due": Paid.PAST_DUE,
    "unpaid": Paid.UNPAID,
    "incomplete": Paid.UNPAID,
    "paused": Paid.UNPAID,
    "canceled": Paid.CANCELED,
    "incomplete_expired": Paid.CANCELED,
}


@dataclass(frozen=True, slots=True)
class Consequence:
    """What a step means for a live tenant's payments and for its pages."""

    refused: str  # detail of the 403; empty: payments are accepted
    banner: str  # shown on the tenant's pages; empty: nothing
    colour: str


CONSEQUENCES: Final[dict[Dunning, Consequence]] = {
    Dunning.NONE: Consequence("", "", "green"),
    Dunning.NOTICE: Consequence(
        "", "The last invoice could not be paid. Please check the card, or live payments will be refused.", "amber"
    ),
    Dunning.REFUSED: Consequence(
        "live payments are refused: the subscription is past due; its owner can pay the open invoice",
        "Live payments are refused until the open invoice is paid.",
        "red",
    ),
    Dunning.SUSPENDED: Consequence(
        "live mode is suspended: there is no paid subscription; its owner can choose a plan",
        "Live mode is suspended: there is no paid subscription.",
        "red",
    ),
}


def step_of(status: str, *, past_due_since: datetime | None, now: datetime, grace: timedelta) -> Dunning:
    """The dunning step of a subscription, from its state and from how long an invoice has been open."""
    match Paid(status):
        case Paid.TRIALING | Paid.ACTIVE:
            return Dunning.NONE
        case Paid.PAST_DUE:
            return Dunning.NOTICE if past_due_since is None or now < past_due_since + grace else Dunning.REFUSED
        case _:
            return Dunning.SUSPENDED


def status_of(subscription: Subscription, *, now: datetime) -> Paid:
    """The state of a subscription without Stripe: an ended trial becomes past due, a free plan stays active."""
    status = Paid(subscription.status)
    if subscription.stripe_subscription:
        return status
    if status is Paid.TRIALING and subscription.trial_end and subscription.trial_end <= now:
        return Paid.PAST_DUE if subscription.plan.price else Paid.ACTIVE
    if subscription.cancel_at and subscription.cancel_at <= now:
        return Paid.CANCELED
    return status
