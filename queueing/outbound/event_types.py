"""Filters of event types: which types an endpoint subscribes to. The types themselves are registered: sources.py."""

from collections.abc import Iterable

from queueing.outbound import sources
from registry.errors import Invalid

TEST = "endpoint.test"  # sent on demand, whatever an endpoint subscribes to
DISABLED = "endpoint.disabled"  # a note in the endpoint's log; never sent
FILTERS_AT_MOST = 50


def wants(filters: Iterable[str], type: str) -> bool:
    """Whether one of `filters` is this type, a prefix of it that ends in ".", or "*"."""
    return any(one in ("*", type) or (one.endswith(".") and type.startswith(one)) for one in filters)


def read_filters(given: list[str]) -> list[str]:
    """`given` in the stored form: `payment.*` becomes `payment.`. Raises Invalid (422) naming a filter that matches no type."""
    types = sources.types()
    filters = list(dict.fromkeys(one.strip().removesuffix("*") or "*" for one in given))
    unknown = [one for one in filters if one != "*" and not any(wants([one], type) for type in types)]
    if not filters or len(filters) > FILTERS_AT_MOST or unknown:
        known = ", ".join(types)
        wrong = f"{unknown[0][:50]!r} is no type of event" if unknown else f"wants 1 to {FILTERS_AT_MOST} types"
        raise Invalid(
            errors=[
                {"field": "events", "message": f'{wrong}; there are {known}, beginnings such as "payment.", and "*"'}
            ]
        )
    return filters
