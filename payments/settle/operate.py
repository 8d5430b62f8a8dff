"""Guarded actions of payments: replay and close dead letters, switch payments between inline and queued."""

from payments.models import DeadLetter
from payments.settle import dead_letters, inline
from payments.settle.dead_letters import BookedAsExternal
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


REPLAY = guarded(
    "deadletter.replay",
    label="Replay",
    warning=(
        "Failed payments are queued again. Uncertain payments are looked up at the same processor first; nothing is "
        "charged twice."
    ),
    expects=OPEN,
    perform=replay_rows,
)
CLOSE = guarded(
    "deadletter.close",
    label="Close without replay",
    warning="The dead letters are closed. The payments stay as they are.",
    expects=OPEN,
    perform=close_rows,
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
