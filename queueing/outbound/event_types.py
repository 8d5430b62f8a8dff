"""What a tenant can be told of: the types of events, and which of them an endpoint wants. Names only; fanout.py makes the events."""

from collections.abc import Iterable

from payments.states import Status
from registry.errors import Invalid

TEST = "endpoint.test"  # sent on demand, whatever an endpoint wants
DISABLED = "endpoint.disabled"  # a note in the log
KINDS = (
    "refund.created",
    "refund.returned",
    "refund.failed",
    "dispute.opened",
    "dispute.updated",
    "dispute.closed",
)
TYPES = (*(f"payment.{status.value}" for status in Status), *KINDS)
FILTERS_AT_MOST = 50


def wants(filters: Iterable[str], type: str) -> bool:
    """Whether one of `filters` names this type, its beginning, or everything."""
    return any(one in ("*", type) or (one.endswith(".") and type.startswith(one)) for one in filters)


def read_filters(given: list[str]) -> list[str]:
    """`given` as it is kept: `payment.*` becomes `payment.`. Raises Invalid (422) naming what fits no type at all."""
    filters = list(dict.fromkeys(one.strip().removesuffix("*") or "*" for one in given))
    unknown = [one for one in filters if one != "*" and not any(wants([one], type) for type in TYPES)]
    if not filters or len(filters) > FILTERS_AT_MOST or unknown:
        known = ", ".join(TYPES)
        wrong = f"{unknown[0][:50]!r} is no type of event" if unknown else f"wants 1 to {FILTERS_AT_MOST} types"
        raise Invalid(
            errors=[
                {"field": "events", "message": f'{wrong}; there are {known}, beginnings such as "payment.", and "*"'}
            ]
        )
    return filters
