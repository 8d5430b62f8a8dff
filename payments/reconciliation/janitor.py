"""The janitor: looks up payments that require an action, and payments and refunds in doubt that workers gave up.

It sends nothing. If the processor has an answer, the row becomes due again, and a worker looks it up and settles it. Older rows
are looked up less often.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from functools import partial
from itertools import batched
from pathlib import Path
from typing import Any, Final, NamedTuple, Self
from uuid import UUID

from payments.processors import KINDS
from payments.processors.base import Account, CanRefund, Order, Outcome, Processor, RefundOrder, Result
from payments.reconciliation.comparison import accounts_of, shuffled
from payments.refunds import operate
from payments.settle import lifecycle
from payments.states import REQUIRES_ACTION
from queueing.work.opened import Opened
from registry.data import database
from registry.data.chores import chore
from registry.telemetry import metrics
from registry.tenants import access

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "janitor.sql")

ACTOR = "janitor"  # in the audit trail
PAGE = 200  # rows per page
AT_ONCE = 20  # concurrent look-ups
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0  # seconds


class Band(NamedTuple):
    """Rows whose age, in seconds since their last change, is between the limits are looked up every `every` seconds."""

    name: str
    every: int
    youngest: float
    oldest: float


BANDS: Final = (
    Band("janitor", 300, 5 * MINUTE, HOUR),
    Band("janitor-hourly", 3600, HOUR, DAY),
    Band("janitor-daily", 86400, DAY, 60 * DAY),  # processors end what waits for longer than that themselves
)


class WaitingPayment(NamedTuple):
    """A payment that no worker claims, in the order of the statement's columns."""

    tenant_id: int
    id: int
    correlation_id: UUID
    amount: int
    currency: str
    status: str
    processor_id: int
    requested_at: datetime
    action: dict[str, Any] | None
    reference: str | None
    in_doubt_for: float | None

    @property
    def order(self) -> Order:
        """Without `method` and `canceling`, so that the look-up changes nothing at the processor."""
        return Order(
            correlation_id=self.correlation_id,
            amount=self.amount,
            currency=self.currency,
            requested_at=self.requested_at,
            tenant_id=self.tenant_id,
            reference=self.reference or "",
        )


class StoppedRefund(NamedTuple):
    """A refund in doubt that workers gave up, in the order of the statement's columns."""

    tenant_id: int
    id: int
    public_id: UUID
    correlation_id: UUID
    amount: int
    currency: str
    reason: str
    processor_id: int
    requested_at: datetime
    reference: str
    payment_reference: str | None

    @property
    def order(self) -> RefundOrder:
        return RefundOrder(
            refund_id=self.public_id,
            payment_id=self.correlation_id,
            payment_reference=self.payment_reference or "",
            amount=self.amount,
            currency=self.currency,
            reason=self.reason,
            requested_at=self.requested_at,
            tenant_id=self.tenant_id,
            reference=self.reference,
        )


async def clean(band: Band, tenant_ids: Sequence[int] | None = None) -> Counter[str]:
    """Look up all rows of this age. Counts the answers by result, and as "moved" the rows that are due again."""
    answers: Counter[str] = Counter()
    if tenant_ids is None:
        tenant_ids = await access.tenant_ids()
    for tenant_id in shuffled(tenant_ids):
        async with _TenantJanitor(tenant_id, answers) as janitor:
            async for page in _pages("payments", tenant_id, band):
                await janitor.payments([WaitingPayment(*row) for row in page])
            async for page in _pages("refunds", tenant_id, band):
                await janitor.refunds([StoppedRefund(*row) for row in page])
    if answers:
        log.info("janitor looked payments up", extra={"band": band.name, **answers})
    return answers


for band in BANDS:
    chore(band.name, every=band.every)(partial(clean, band))


async def _pages(statement: str, tenant_id: int, band: Band) -> AsyncIterator[list[database.Row]]:
    after = 0
    while True:
        asked = {"tenant": tenant_id, "after": after, "limit": PAGE, "youngest": band.youngest, "oldest": band.oldest}
        page = await database.fetch(SQL[statement], asked, prepare=False)
        if page:
            yield page
        if len(page) < PAGE:
            return
        after = page[-1][1]


class _TenantJanitor:
    """The janitor for one tenant: its accounts, and processors that are opened when needed."""

    def __init__(self, tenant_id: int, answers: Counter[str]) -> None:
        self.tenant_id, self.answers = tenant_id, answers
        self._accounts: dict[int, Account] | None = None
        self._processors: Opened[str, Processor] = Opened()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._processors.close()

    async def payments(self, page: Sequence[WaitingPayment]) -> None:
        changed = []
        for batch in batched(page, AT_ONCE):
            answers = await asyncio.gather(*(self._look_up(one) for one in batch))
            for one, (account, answer) in zip(batch, answers, strict=True):
                self._count(one.status, answer)
                if account is not None and is_change(one, account, answer):
                    changed.append(one.correlation_id)
        if changed:
            self.answers["moved"] += len(await lifecycle.look_again(tenant_id=self.tenant_id, correlation_ids=changed))

    async def _look_up(self, one: WaitingPayment) -> tuple[Account | None, Outcome]:
        opened = await self._open(one.processor_id)
        if opened is None:
            return None, Outcome(Result.UNKNOWN, code="no_processor")
        account, processor = opened
        return account, await processor.look_up(one.order, account)

    async def refunds(self, page: Sequence[StoppedRefund]) -> None:
        for one in page:
            answer = await self._look_up_refund(one)
            self._count("refund", answer)
            if answer.result in (Result.BOOKED, Result.DECLINED, Result.CANCELED):
                moved = await operate.retry(
                    tenant_id=self.tenant_id,
                    refund_id=one.id,
                    actor=ACTOR,
                    reason=f"{lifecycle.REPORTED} ({answer.code})",
                )
                self.answers["moved"] += moved

    async def _look_up_refund(self, one: StoppedRefund) -> Outcome:
        opened = await self._open(one.processor_id)
        if opened is None or not isinstance(opened[1], CanRefund):
            return Outcome(Result.UNKNOWN, code="no_processor")
        account, processor = opened
        return await processor.look_up_refund(one.order, account)

    async def _open(self, processor_id: int) -> tuple[Account, Any] | None:
        if self._accounts is None:
            self._accounts = {account.id: account for account in await accounts_of(self.tenant_id)}
        account = self._accounts.get(processor_id)
        if account is None:
            return None
        return account, await self._processors.get(account.endpoint, KINDS[account.kind])

    def _count(self, what: str, answer: Outcome) -> None:
        self.answers[answer.result.value] += 1
        metrics.JANITOR.labels(what, answer.result.value).inc()


def is_change(one: WaitingPayment, account: Account, answer: Outcome) -> bool:
    """Whether a worker can settle the payment by this answer.

    "Not booked" settles only a payment that has been in doubt for longer than the processor's longest delay.
    """
    if answer.result in (Result.BOOKED, Result.DECLINED, Result.CANCELED):
        return True
    if one.status == REQUIRES_ACTION:
        return answer.result is Result.REQUIRES_ACTION and _required(answer.action) != _required(one.action)
    if answer.result is Result.NOT_BOOKED:
        return (one.in_doubt_for or 0.0) > account.longest_delay
    return answer.result is Result.REQUIRES_ACTION


def _required(action: dict[str, Any] | None) -> tuple[Any, Any]:
    """The action and who has to take it, without its secrets."""
    return (action or {}).get("type"), (action or {}).get("needs")
