"""The answer to a request for a payment: accepted now, or a replay of the first answer, whatever has changed since."""

from collections.abc import Sequence

from payments.errors import DifferentContent
from payments.intake import intake
from payments.intake.intake import First, Order, Receipt
from payments.intake.requests import Asked, understood
from registry.errors import Problem, Unavailable

type Taken = tuple[Order, Receipt]


async def take(asked: Sequence[Asked], *, inline: bool = False) -> list[Taken | Problem]:
    """Make all payments durable that are not refused. One answer each, in order.

    Existing payments are looked up only before a refusal: the settings may have been different when a payment was accepted.
    """
    orders = [one.order for one in asked if one.order is not None and one.refusal is None]
    outcomes = zip(orders, await intake.submit_many(orders, inline=inline), strict=True)
    answers = [one.refusal or _answer(*next(outcomes)) for one in asked]
    doubtful = [n for n, one in enumerate(asked) if _may_be_known(one, answers[n])]
    if doubtful:
        firsts = await _first_answers([asked[n] for n in doubtful], [answers[n] for n in doubtful])
        for n, first in zip(doubtful, firsts, strict=True):
            answers[n] = first
    return answers


def _answer(order: Order, outcome: Receipt | Problem) -> Taken | Problem:
    return (order, outcome) if isinstance(outcome, Receipt) else outcome


def _may_be_known(asked: Asked, answer: Taken | Problem) -> bool:
    """Whether the payment may have been accepted before in spite of this answer."""
    if asked.named is None or isinstance(answer, (tuple, Unavailable)):
        return False
    if asked.request.currency is None:  # the tenant's currency may have been another one then
        return True
    return asked.order is not None and not isinstance(answer, DifferentContent)


async def _first_answers(asked: Sequence[Asked], answers: Sequence[Taken | Problem]) -> list[Taken | Problem]:
    away: Unavailable | None = None
    found = intake.waiting([_key(one) for one in asked])
    try:
        if others := [key for one in asked if (key := _key(one)) not in found]:
            found |= await intake.stored(others)
    except Unavailable as error:
        away = error
    return [
        # What may have been accepted must not be refused for good.
        away if away and one.for_now and _key(one) not in found else _judged(one, answer, found.get(_key(one)))
        for one, answer in zip(asked, answers, strict=True)
    ]


def _key(asked: Asked) -> intake.Key:
    assert asked.named
    return asked.tenant_id, asked.named


def _judged(asked: Asked, answer: Taken | Problem, first: First | None) -> Taken | Problem:
    """A replay where what is asked for means now what it meant the first time; other content is a conflict."""
    if first is None:
        return answer
    faults: list[dict[str, str]] = []
    order = understood(asked.request, asked.tenant_id, asked.named, first.currency, faults)
    if order is not None and intake.fingerprint(order) == first.fingerprint:
        return order, Receipt(first.at, replayed=True, spilled=first.spilled)
    return answer if faults else DifferentContent()
