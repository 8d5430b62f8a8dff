"""Payments without an outcome: waiting, scheduled, retrying, in doubt, or waiting for an action. No I/O."""

from functools import partial

from payments.pages.codes import words
from payments.pages.explain.banner import PAYERS_PAGE, PROCESSORS, Banner, Offer, amount_of, asked, named, where
from payments.pages.facts import PaymentFacts
from payments.settle.decisions import GIVE_UP_AFTER, MAX_ATTEMPTS, MAX_QUESTIONS
from payments.states import QUEUED, UNCERTAIN

CANCEL = Offer("cancel", "Cancel payment")


def waiting(facts: PaymentFacts) -> Banner | None:
    """Queued, due, and no processor takes payments."""
    if facts.status is not QUEUED or is_scheduled(facts) or has_route(facts):
        return None
    return Banner(
        state="waiting",
        colour="amber",
        shape="◌",
        what=f"No processor takes this payment now: {_why_no_route(facts)}.",
        money="No money has moved. It is sent as soon as a processor takes payments again; nothing is lost.",
        offers=(Offer(PROCESSORS, "Show processors"), CANCEL),
    )


def has_route(facts: PaymentFacts) -> bool:
    return any(route.works and route.is_meant(facts.wanted) for route in facts.processors)


def _why_no_route(facts: PaymentFacts) -> str:
    meant = [route for route in facts.processors if route.is_meant(facts.wanted)]
    if facts.wanted and not meant:
        return f"it was requested at {facts.wanted} by name, and there is no processor of that name"
    if not meant:
        return (
            "there is none that takes payments without a request by name" if facts.processors else "there is none yet"
        )
    away = [route for route in meant if route.enabled]
    if not away:
        return f"{_listed([route.name for route in meant])} {'is' if len(meant) == 1 else 'are'} switched off"
    broken = [route.name for route in away if route.breaker != "closed"]
    failing = [route.name for route in away if route.name not in broken]
    parts = [_breakers(broken)] if broken else []
    parts += (
        [f"{_listed(failing)} {'reports' if len(failing) == 1 else 'report'} that payments fail"] if failing else []
    )
    return " and ".join(parts)


def _breakers(names: list[str]) -> str:
    return f"the circuit breaker{'s' if len(names) > 1 else ''} of {_listed(names)} {'are' if len(names) > 1 else 'is'} open"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def is_scheduled(facts: PaymentFacts) -> bool:
    return facts.status is QUEUED and facts.scheduled_for is not None and facts.scheduled_for > facts.now


def scheduled(facts: PaymentFacts) -> Banner | None:
    if not is_scheduled(facts):
        return None
    return Banner(
        state="scheduled",
        colour="grey",
        shape="○",
        what="It is scheduled for later.",
        money="No money moves before that time.",
        at=facts.scheduled_for,
        at_label="Scheduled for",
        offers=(CANCEL,),
    )


def retrying(facts: PaymentFacts) -> Banner | None:
    """Queued again after attempts that were certainly not booked."""
    if facts.status is not QUEUED or not facts.tries or not facts.last or is_scheduled(facts) or not has_route(facts):
        return None
    return Banner(
        state="retrying",
        colour="amber",
        shape="↻",
        what=f"{named(where(facts))} did not book it ({words(facts.last.code)}); it is tried again.",
        money=f"No money has moved. Attempt {facts.tries} was certainly not booked; {_until_given_up(facts)}.",
        at=facts.due_at if facts.due_at > facts.now else None,
        at_label="Next attempt",
        offers=(CANCEL,),
    )


def _until_given_up(facts: PaymentFacts) -> str:
    if facts.tries < MAX_ATTEMPTS:
        return f"it is given up after {MAX_ATTEMPTS} attempts"
    return f"while the processor is away it is tried for {GIVE_UP_AFTER.total_seconds() / 3600:.0f} hours"


def uncertain(facts: PaymentFacts) -> Banner | None:
    """In doubt, and workers ask the processor."""
    if facts.status is not UNCERTAIN or facts.open_letter or facts.closed_letter:
        return None
    return Banner(
        state="uncertain",
        colour="amber",
        shape="◑",
        what=f"{named(where(facts))} has not said whether it booked the payment; it is asked until it does.",
        money=(
            f"The payer may have been charged {amount_of(facts)}, once at most: it is sent to no other processor. "
            f"It is given up after {MAX_QUESTIONS} attempts."
        ),
        **asked(facts),
        offers=(Offer("look_again", "Ask now"),),
    )


def requires_action(facts: PaymentFacts) -> Banner | None:
    if facts.action is None:
        return None
    banner = partial(Banner, state="requires_action", colour="violet", shape="◐")
    if facts.canceling:
        return banner(what=f"It is being canceled at {where(facts)}.", money="Nothing is charged once that is done.")
    if facts.action.get("type") == "capture":
        return banner(
            what=f"It is authorized at {where(facts)}, and waits for its capture.",
            money=(
                f"{amount_of(facts)} is held on the payer's card and not collected yet. {named(where(facts))} releases it "
                "after some days, card payments usually after 7."
            ),
            offers=(Offer("capture", f"Capture {amount_of(facts)}"), CANCEL),
        )
    if facts.action.get("type") == "wait":
        return banner(
            what=f"{named(where(facts))} is still processing it; that can take days.",
            money="It may still succeed or fail. The payer is charged once at most.",
            offers=(Offer("look_again", "Ask now"),),
        )
    needs = "confirm it at the bank" if facts.action.get("needs") == "authentication" else "enter a payment method"
    return banner(
        what=f"The payer has to {needs}.",
        money="Nothing has been charged; nothing is charged until the payer has done that.",
        offers=(Offer(PAYERS_PAGE, "Open the payer's page"), CANCEL),
    )
