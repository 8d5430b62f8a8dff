"""Source of attention of a merchant: no processor takes payments."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from registry.data import database
from registry.operators.attention import Item, Severity, source

SQL = database.statements(Path(__file__).parent / "sql" / "takers.sql")
COUNTED = 10_000  # waiting payments that are counted at most
PAGE = "/processors"


@source("processors.none")
async def none_takes_payments(tenant_ids: Sequence[int] | None) -> list[Item]:
    """For tenants only: the operators' home lists the processors that are down."""
    if tenant_ids is None:
        return []
    rows = await database.fetch(SQL["takers"], {"tenants": list(tenant_ids), "limit": COUNTED}, prepare=False)
    return [_item(*row) for row in rows]


def _item(
    names: Sequence[str], enabled: Sequence[str], routed: Sequence[str], waiting: int, since: datetime | None
) -> Item:
    why, action = _why(names, enabled, routed)
    count = f"{waiting:,}{' or more' if waiting == COUNTED else ''}"
    waits = f" {count} payment{' waits' if waiting == 1 else 's wait'}." if waiting else ""
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
