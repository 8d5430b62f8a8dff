"""Source of attention: a tenant none of whose processors takes payments."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from payments.models import Processor
from registry.data import database
from registry.operators.attention import Item, Severity, source
from registry.operators.cells import address_of_list

SQL = database.statements(Path(__file__).parent / "sql" / "takers.sql")
COUNTED = 10_000  # waiting payments that are counted at most
PAGE = "/processors"
TENANTS = 10  # with an item of their own on the operators' home


@source("processors.none")
async def none_takes_payments(tenant_ids: Sequence[int] | None) -> list[Item]:
    """For operators: tenants with payments that wait; what is down itself is an item of its own (attention.py)."""
    if tenant_ids is None:
        found = await database.fetch(SQL["waiting"], {"tenants": TENANTS, "limit": COUNTED}, prepare=False)
        return [_of_tenant(*row) for row in found]
    rows = await database.fetch(SQL["takers"], {"tenants": list(tenant_ids), "limit": COUNTED}, prepare=False)
    return [_item(*row) for row in rows]


def _of_tenant(slug: str, waiting: int, since: datetime) -> Item:
    """A tenant's line for operators."""
    return Item(
        severity=Severity.CRITICAL,
        sentence=f"No processor of {slug} takes payments: {_counted(waiting)}. They are sent once one works or is switched on.",
        count=waiting,
        since=since,
        action="See its processors",
        admin=address_of_list(Processor, tenant=slug),
    )


def _counted(waiting: int) -> str:
    more = " or more" if waiting == COUNTED else ""
    return f"{waiting:,}{more} payment{' waits' if waiting == 1 else 's wait'}"


def _item(
    names: Sequence[str], enabled: Sequence[str], routed: Sequence[str], waiting: int, since: datetime | None
) -> Item:
    why, action = _why(names, enabled, routed)
    waits = f" {_counted(waiting)}." if waiting else ""
    return Item(
        severity=Severity.CRITICAL if waiting or names else Severity.WARNING,
        sentence=f"No processor takes payments: {why}. Payments are accepted and stay queued.{waits}",
        count=max(waiting, 1),
        since=since,
        action=action,
        page=PAGE,
    )


def _why(names: Sequence[str], enabled: Sequence[str], routed: Sequence[str]) -> tuple[str, str]:
    """The reason, and the label of the action."""
    if not names:
        return "there is none", "Add a processor"
    if not enabled:
        return f"{_listed(names)} {'is' if len(names) == 1 else 'are'} switched off", "Switch one on"
    if not routed:
        is_sent = "is sent" if len(enabled) == 1 else "are sent"
        return f"{_listed(enabled)} {is_sent} only payments that name it", "Change the routing"
    have = "has its breaker open or reports that it fails"
    if len(routed) > 1:
        have = "have their breakers open or report that they fail"
    return f"{_listed(routed)} {have}", "See processors"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
