"""Job `payments.reconcile`: compare processors' books with ours."""

from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from payments.reconciliation import comparison
from payments.reconciliation.comparison import SETTLED_AFTER, Window
from queueing.jobs.kinds import Context, JobFailed, JobRetry, kind
from registry.data import clock

NAME = "payments.reconcile"
TIMEOUT = 3600.0  # seconds
LONGEST = timedelta(days=400)

Moment = Annotated[datetime, Meta(tz=True)]


class ReconcileInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A window of requestedAt, the last day without one; and a processor's name, all without one."""

    from_: Moment | None = msgspec.field(name="from", default=None)
    to: Moment | None = None
    processor: Annotated[str, Meta(max_length=63)] | None = None

    def window(self) -> Window:
        until = min(self.to or clock.now(), clock.now() - SETTLED_AFTER)
        return Window(self.from_ or until - timedelta(days=1), until)


@kind(NAME, input=ReconcileInput, runs="loop", timeout=TIMEOUT, tenant_concurrency=1)
async def reconcile(context: Context, asked: ReconcileInput) -> list[dict[str, Any]]:
    """Compare processors' books with ours."""
    window = asked.window()
    if window.since >= window.until:
        raise JobFailed("the window ends before it begins", code="invalid_window")
    if window.until - window.since > LONGEST:
        raise JobFailed(f"the window is longer than {LONGEST.days} days", code="invalid_window")
    accounts = [one for one in await comparison.accounts_of(context.tenant_id) if asked.processor in (None, one.name)]
    if not accounts:
        named = f" named {asked.processor}" if asked.processor else ""
        raise JobFailed(f"there is no processor{named}", code="unknown_processor")
    compared = []
    for number, account in enumerate(accounts):
        context.progress(number, len(accounts), account.name)
        outcome = await comparison.reconcile(account, window, again=True)
        if outcome is None:
            raise JobRetry(f"{account.name} is being compared for this window already", code="compared_now")
        both_ways = comparison.shows_books(account)
        compared.append({"processor": account.name, "bothWays": both_ways, **msgspec.to_builtins(outcome)})
    context.progress(len(accounts), len(accounts))
    return compared
