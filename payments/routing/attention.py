"""Source of attention: processors that are down, by their circuit breaker or their own report."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from payments.models import Endpoint
from payments.routing.endpoint import REPORT_VALID_FOR
from registry.data import database
from registry.operators.attention import Item, Severity, counted, source
from registry.operators.cells import address_of_list

SQL = database.statements(Path(__file__).parent / "sql" / "attention_routing.sql")
LISTED = 10  # endpoints with a line of their own
NAMED = 3  # processors named of each


@source("processors.down")
async def down(tenant_ids: Sequence[int] | None) -> list[Item]:
    rows = await down_endpoints(tenant_ids, limit=LISTED)
    items = [_item(*row, of_one=tenant_ids is not None and len(tenant_ids) == 1) for row in rows]
    if items or tenant_ids is not None:
        return items
    [(processors, addresses)] = await database.fetch(SQL["routable"], prepare=False)
    at = counted(addresses, "address", "addresses")
    return [
        Item(
            severity=Severity.WELL,
            sentence=f"{counted(processors, 'processor')} at {at}: no breaker is open.",
            count=processors,
        )
    ]


async def down_endpoints(tenant_ids: Sequence[int] | None, *, limit: int) -> list[database.Row]:
    """The statement `down`; its second and third columns are the breaker's state, and whether the endpoint reports to be failing."""
    asked = {"tenants": tenant_ids, "limit": limit, "valid": REPORT_VALID_FOR}
    return await database.fetch(SQL["down"], asked, prepare=False)


def _item(
    key: str,
    breaker: str,
    failing: bool,
    changed: datetime,
    polled: datetime | None,
    failures: int,
    names: Sequence[str],
    tenants: Sequence[str],
    *,
    of_one: bool,
) -> Item:
    told = [name if of_one else f"{name} of {slug}" for name, slug in zip(names, tenants, strict=True)]
    who = ", ".join(told[:NAMED]) + (f" and {len(told) - NAMED} more" if len(told) > NAMED else "")
    is_down = breaker != Endpoint.Breaker.CLOSED
    if breaker == Endpoint.Breaker.OPEN:
        why = f"the breaker is open after {counted(failures, 'failure')}, so no payments are sent"
    elif is_down:
        why = "it is being tried again with single payments"
    else:
        why = "it reports that it is failing"
    return Item(
        severity=Severity.CRITICAL if breaker == Endpoint.Breaker.OPEN else Severity.WARNING,
        sentence=f"{who}: {why}. Payments go to other processors, or wait.",
        count=len(told),
        since=changed if is_down else polled,
        action="See the breaker",
        page="/processors",
        admin=address_of_list(Endpoint, q=key),
    )
