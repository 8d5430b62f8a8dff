"""Guarded actions of payments: replay and close dead letters, switch payments between inline and queued."""

from collections import Counter
from collections.abc import Iterable

from payments.models import DeadLetter, Payment
from payments.money import grouped_text
from payments.settle import dead_letters, inline
from payments.settle.dead_letters import BookedAsExternal
from payments.states import FAILED, UNCERTAIN
from registry.models import Tenant
from registry.operators.confirm import Confirmed
from registry.operators.decide import Done, each
from registry.operators.rows import guarded
from registry.operators.switches import for_everyone, for_tenants

SWITCH = f"inline.{inline.OPERATION}"
OPEN = {"resolution": ""}

# -- Dead letters ------------------------------------------------------------------------------------------------


async def replay_rows(confirmed: Confirmed) -> Done:
    done, lost, refused = 0, 0, []
    for letter in confirmed.action.rows:
        try:
            moved = await dead_letters.replay(dead_letter_id=letter.pk, actor=confirmed.actor, reason=confirmed.reason)
        except BookedAsExternal as error:
            refused.append(f"{letter.payment_id}: {error.detail}")
        else:
            done, lost = done + moved, lost + (not moved)
    return Done(rows=done, lost=lost, errors=refused)


async def close_rows(confirmed: Confirmed) -> Done:
    async def close(letter: DeadLetter) -> bool:
        return await dead_letters.close(dead_letter_id=letter.pk, actor=confirmed.actor, reason=confirmed.reason)

    return await each(confirmed.action.rows, close)


def _sums(rows: Iterable[Payment]) -> str:
    """How many, and their amounts by currency: 2 payments, 39.80 BRL."""
    sums = Counter[str]()
    count = 0
    for row in rows:
        count, sums[row.currency] = count + 1, sums[row.currency] + row.amount
    amounts = " and ".join(grouped_text(units, currency) for currency, units in sorted(sums.items()))
    return f"{count:,} payment{'' if count == 1 else 's'}, {amounts}"


def _by_status(letters: list[DeadLetter]) -> dict[str, list[Payment]]:
    keys = {(letter.tenant_id, letter.payment_id) for letter in letters}
    found = Payment.objects.filter(tenant_id__in={t for t, _ in keys}, id__in={p for _, p in keys})
    groups: dict[str, list[Payment]] = {}
    for payment in found:
        groups.setdefault(payment.status, []).append(payment)
    return groups


def close_means(letters: list[DeadLetter]) -> str:
    """What closing these dead letters means for the money of their payments."""
    groups = _by_status(letters)
    parts = []
    if doubtful := groups.pop(UNCERTAIN, []):
        parts.append(
            f"{_sums(doubtful)}: uncertain. The payer may have been charged. After closing, the payment stays uncertain: it is in "
            "no balance, cannot be refunded here, and is not sent again. For 60 days the processor is still asked, "
            "less and less often, and a booking that it reports is booked. Look at the processor's own records before you close."
        )
    if failed := groups.pop(FAILED, []):
        parts.append(f"{_sums(failed)}: failed. The processor did not book it, and the payer was not charged.")
    if settled := [payment for others in groups.values() for payment in others]:
        parts.append(f"{_sums(settled)}: in another state by now, which does not change.")
    return " ".join(parts)


def replay_means(letters: list[DeadLetter]) -> str:
    """What replaying these dead letters means for the money of their payments."""
    groups = _by_status(letters)
    parts = []
    if doubtful := groups.pop(UNCERTAIN, []):
        parts.append(
            f"{_sums(doubtful)}: uncertain. The same processor is asked first, so the payer is not charged twice."
        )
    if failed := groups.pop(FAILED, []):
        parts.append(f"{_sums(failed)}: failed. It is sent again, and the payer is charged if it succeeds.")
    return " ".join(parts)


REPLAY = guarded(
    "deadletter.replay",
    label="Replay",
    warning=(
        "Failed payments are queued again. Uncertain payments are looked up at the same processor first; nothing is "
        "charged twice."
    ),
    expects=OPEN,
    perform=replay_rows,
    consequence=replay_means,
)
CLOSE = guarded(
    "deadletter.close",
    label="Close without replay",
    warning="The dead letters are closed. The payments stay as they are.",
    expects=OPEN,
    perform=close_rows,
    consequence=close_means,
)

# -- Switches ----------------------------------------------------------------------------------------------------

INLINE_FOR_EVERYONE = guarded(
    "switch.inline",
    label="Inline for everyone",
    warning=(
        "Within a second the requests of all tenants wait for their outcome. What a web process has no capacity for is "
        "queued as before."
    ),
    expects={},
    perform=for_everyone(True),
)
QUEUED_FOR_EVERYONE = guarded(
    "switch.queued",
    label="Queued for everyone",
    warning=(
        "Within a second requests are answered as soon as their payment is durable, for the tenants named in the switch "
        "too."
    ),
    expects={},
    perform=for_everyone(False),
)
INLINE_FOR_SOME = guarded(
    "switch.tenants",
    label="Inline for the tenants named only",
    warning="Within a second each tenant's own switch applies again.",
    expects={},
    perform=for_everyone(None),
)
INLINE = guarded(
    "tenant.payment_inline",
    label="Inline: the web processes send their payments",
    warning="Within a second their requests wait for the outcome. A switch for everyone overrides this.",
    expects={"status": Tenant.Status.ACTIVE},
    perform=for_tenants(SWITCH, inline=True),
)
QUEUED = guarded(
    "tenant.payment_queued",
    label="Queued: workers send their payments",
    warning="Within a second their requests are answered as soon as they are durable.",
    expects={"status": Tenant.Status.ACTIVE},
    perform=for_tenants(SWITCH, inline=False),
)
