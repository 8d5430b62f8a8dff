"""What no worker looks at by itself: payments that wait for an action, and what workers gave up while it was in doubt.

The processor is asked first, always, and nothing is sent from here: what has an answer now is made due, and a worker
settles it by asking for itself (the two dispatch.py). The older it is, the less often it is asked about.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

from payments.processors import KINDS
from payments.processors.base import Account, Debt, GivesBack, Order, Outcome, Processor, Result
from payments.reconciliation.comparison import accounts_of, shuffled
from payments.refunds import operate
from payments.settle import lifecycle
from payments.states import REQUIRES_ACTION
from registry import telemetry
from registry.data import database
from registry.tenants import access

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "janitor.sql")

ACTOR = "janitor"  # in the audit trail
NEWS = "The processor has news of it"  # in the payment's timeline, which payers read
PAGE = 200  # rows asked about before the next are read
ASKED_AT_ONCE = 20  # look-ups side by side
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0  # seconds


class Band(NamedTuple):
    """What is so old, in seconds since it came to stand as it does, is asked about every `every` seconds."""

    name: str
    every: int
    youngest: float
    oldest: float


BANDS: Final = (
    Band("janitor", 300, 5 * MINUTE, HOUR),
    Band("janitor-hourly", 3600, HOUR, DAY),
    Band("janitor-daily", 86400, DAY, 60 * DAY),  # processors end what waits for longer than that themselves
)


class Waiting(NamedTuple):
    """A payment that nobody looks at, in the order of the statement's columns."""

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
        """Without its method, and not canceling: a look-up takes the steps that these ask for, and ours takes none."""
        return Order(
            correlation_id=self.correlation_id,
            amount=self.amount,
            currency=self.currency,
            requested_at=self.requested_at,
            tenant_id=self.tenant_id,
            reference=self.reference or "",
        )


class Stopped(NamedTuple):
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
    def debt(self) -> Debt:
        return Debt(
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
    """Ask about everything of this age; how many answers of each kind there were, "moved" for what is due again."""
    told: Counter[str] = Counter()
    if tenant_ids is None:
        tenant_ids = await access.tenant_ids()
    for tenant_id in shuffled(tenant_ids):
        async with _Rounds(tenant_id, told) as rounds:
            async for page in _pages("payments", tenant_id, band):
                await rounds.payments([Waiting(*row) for row in page])
            async for page in _pages("refunds", tenant_id, band):
                await rounds.refunds([Stopped(*row) for row in page])
    if told:
        log.info("janitor asked processors", extra={"band": band.name, **told})
    return told


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


class _Rounds:
    """The janitor at one tenant: its accounts, and clients that are opened when needed."""

    def __init__(self, tenant_id: int, told: Counter[str]) -> None:
        self.tenant_id, self.told = tenant_id, told
        self._accounts: dict[int, Account] | None = None
        self._processors: dict[str, Processor] = {}
        self._open = AsyncExitStack()

    async def __aenter__(self) -> "_Rounds":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._open.aclose()

    async def payments(self, page: Sequence[Waiting]) -> None:
        news = []
        for some in _few(page):
            answers = await asyncio.gather(*(self._look_up(one) for one in some))
            for one, (account, answer) in zip(some, answers, strict=True):
                self._count(one.status, answer)
                if account is not None and is_news(one, account, answer):
                    news.append(one.correlation_id)
        if news:
            moved = await lifecycle.look_again(tenant_id=self.tenant_id, correlation_ids=news, reason=NEWS)
            self.told["moved"] += len(moved)

    async def _look_up(self, one: Waiting) -> tuple[Account | None, Outcome]:
        found = await self._at(one.processor_id)
        if found is None:
            return None, Outcome(Result.UNKNOWN, code="no_processor")
        account, processor = found
        return account, await processor.look_up(one.order, account)

    async def refunds(self, page: Sequence[Stopped]) -> None:
        for one in page:
            answer = await self._look_up_refund(one)
            self._count("refund", answer)
            if answer.result in (Result.BOOKED, Result.DECLINED, Result.CANCELED):
                moved = await operate.retry(
                    tenant_id=self.tenant_id, refund_id=one.id, actor=ACTOR, reason=f"{NEWS} ({answer.code})"
                )
                self.told["moved"] += moved

    async def _look_up_refund(self, one: Stopped) -> Outcome:
        found = await self._at(one.processor_id)
        if found is None or not isinstance(found[1], GivesBack):
            return Outcome(Result.UNKNOWN, code="no_processor")
        account, processor = found
        return await processor.look_up_refund(one.debt, account)

    async def _at(self, processor_id: int) -> tuple[Account, Any] | None:
        if self._accounts is None:
            self._accounts = {account.id: account for account in await accounts_of(self.tenant_id)}
        account = self._accounts.get(processor_id)
        if account is None:
            return None
        if account.endpoint not in self._processors:
            self._processors[account.endpoint] = await self._open.enter_async_context(KINDS[account.kind]())
        return account, self._processors[account.endpoint]

    def _count(self, what: str, answer: Outcome) -> None:
        self.told[answer.result.value] += 1
        telemetry.JANITOR.labels(what, answer.result.value).inc()


def is_news(one: Waiting, account: Account, answer: Outcome) -> bool:
    """Whether the answer says something that a worker can settle by.

    "Not booked" is one for a payment that has been in doubt for longer than the processor can take, and for no other.
    """
    if answer.result in (Result.BOOKED, Result.DECLINED, Result.CANCELED):
        return True
    if one.status == REQUIRES_ACTION:
        return answer.result is Result.REQUIRES_ACTION and _asks(answer.action) != _asks(one.action)
    if answer.result is Result.NOT_BOOKED:
        return (one.in_doubt_for or 0.0) > account.longest_delay
    return answer.result is Result.REQUIRES_ACTION


def _asks(action: dict[str, Any] | None) -> tuple[Any, Any]:
    """What is to be done by whom, without the secrets that go with it."""
    return (action or {}).get("type"), (action or {}).get("needs")


def _few[T](rows: Sequence[T]) -> list[Sequence[T]]:
    return [rows[start : start + ASKED_AT_ONCE] for start in range(0, len(rows), ASKED_AT_ONCE)]
