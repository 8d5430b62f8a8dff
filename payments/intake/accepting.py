"""Accept checked requests: the payment is durable now, or its first answer is replayed even if settings have changed since."""

from collections.abc import Sequence

from payments.errors import DifferentContent
from payments.intake import spilling, store
from payments.intake.checks import CheckedRequest, new_payment
from payments.intake.intake import submit_many
from payments.intake.payment import FirstPayment, Key, NewPayment, Receipt, fingerprint
from registry.errors import Problem, Unavailable
from registry.telemetry import traces
from registry.tenants import sampling
from registry.tenants.sampling import TracedObject

type Acceptance = tuple[NewPayment, Receipt] | Problem


async def accept(checked: CheckedRequest, *, inline: bool = False) -> tuple[NewPayment, Receipt]:
    """Make the payment durable. Raises the Problem for which it is refused."""
    [answer] = await accept_many([checked], inline=inline)
    if isinstance(answer, Problem):
        raise answer
    return answer


async def accept_many(checked: Sequence[CheckedRequest], *, inline: bool = False) -> list[Acceptance]:
    """Make the payments durable that are not refused. Returns one answer each, in order.

    Before a refusal, existing payments are looked up: the payment may have been accepted under other settings.
    """
    payments = [one.payment for one in checked if one.payment is not None and one.refusal is None]
    results = zip(payments, await submit_many(payments, inline=inline), strict=True)
    answers = [one.refusal or _answer(*next(results)) for one in checked]
    doubtful = [n for n, one in enumerate(checked) if _may_exist(one, answers[n])]
    if doubtful:
        firsts = await _first_answers([checked[n] for n in doubtful], [answers[n] for n in doubtful])
        for n, first in zip(doubtful, firsts, strict=True):
            answers[n] = first
    if traces.on:
        sampling.enter(_traced(answer) for answer in answers if isinstance(answer, tuple))
    return answers


def _traced(accepted: tuple[NewPayment, Receipt]) -> tuple[TracedObject, bool]:
    payment, receipt = accepted
    return TracedObject("payment", payment.tenant_id, payment.correlation_id), not receipt.replayed


def _answer(payment: NewPayment, result: store.IntakeResult) -> Acceptance:
    return (payment, result) if isinstance(result, Receipt) else result


def _may_exist(checked: CheckedRequest, answer: Acceptance) -> bool:
    """Whether the payment may have been accepted earlier, although this answer refuses it."""
    if checked.named is None or isinstance(answer, (tuple, Unavailable)):
        return False
    if checked.request.currency is None:  # the tenant may have had another currency then
        return True
    return checked.payment is not None and not isinstance(answer, DifferentContent)


async def _first_answers(checked: Sequence[CheckedRequest], answers: Sequence[Acceptance]) -> list[Acceptance]:
    """The answers, corrected by the payments that exist under the same ids."""
    away: Unavailable | None = None
    known = spilling.accepted([_key(one) for one in checked])
    try:
        if others := [key for one in checked if (key := _key(one)) not in known]:
            known |= await store.stored(others)
    except Unavailable as error:
        away = error
    return [
        # While that cannot be known, a payment that may have been accepted is not refused for good.
        away if away and one.for_now and _key(one) not in known else _judged(one, answer, known.get(_key(one)))
        for one, answer in zip(checked, answers, strict=True)
    ]


def _key(checked: CheckedRequest) -> Key:
    assert checked.named
    return checked.tenant_id, checked.named


def _judged(checked: CheckedRequest, answer: Acceptance, first: FirstPayment | None) -> Acceptance:
    """A replay if the request has the content of the first one, read in the currency of the first; else a conflict."""
    if first is None:
        return answer
    faults: list[dict[str, str]] = []
    payment = new_payment(checked.request, checked.tenant_id, checked.named, first.currency, faults)
    if payment is not None and fingerprint(payment) == first.fingerprint:
        return payment, Receipt(first.at, replayed=True, spilled=first.spilled)
    return answer if faults else DifferentContent()
