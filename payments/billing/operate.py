"""Guarded actions on plans."""

from registry.operators.rows import guarded

WITHDRAW = guarded(
    "plan.withdraw",
    label="Offer no longer",
    warning="Tenants that have the plan keep it; new subscribers cannot choose it.",
    expects={"offered": True},
    sets={"offered": False},
)
OFFER = guarded(
    "plan.offer",
    label="Offer",
    warning="Everybody who signs up can choose it.",
    expects={"offered": False},
    sets={"offered": True},
)
