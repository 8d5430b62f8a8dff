"""Search payments for the console: all filters of its list, the newest first, by one statement with a limit of rows and of time.

Filters without an index are applied to the newest payments, at most LOOKED_AT of them; the page says so, and how to look further
back. The API's lists are in queries.py.
"""

import math
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

import psycopg

from payments import money
from payments.books.queries import full_item
from payments.errors import AmountRefused
from payments.states import FAILED, OPEN, Reversal, Status, shown_as, shown_state
from registry.data import database
from registry.data.reading import elsewhere
from registry.edge.paging import cursor_after, read_cursor

SQL = database.statements(Path(__file__).parent / "sql" / "search.sql")

ATTENTION: Final = (
    "attention"  # beside the shown states: dead letters, lasting doubts, disputes to respond to, stopped refunds
)
LOOKED_AT = 30_000  # of the newest payments, that a page looks through
LOOKED_UP = 5_000  # of other sources, whose payments lie apart from each other
IDENTIFIED = 1_000  # payments that the beginning of an id, or a reference, may find
COUNTED = 10_000  # of a list without filters
AT_ONCE = 2_000  # payments that an export looks through with one statement
TIME_LIMIT = 2.0  # seconds; at a million payments a page takes a tenth of it
LONGEST_TEXT = 200  # characters of a search
MOST_WORDS = 8
SHORTEST_ID = 4  # digits of the beginning of an id: fewer would fit too many payments

BEGINNING = (datetime(1, 1, 1, tzinfo=UTC), 0)
END = (datetime(9999, 12, 31, tzinfo=UTC), 2**63 - 1)
_ID = re.compile(rf"[0-9a-f]{{{SHORTEST_ID},32}}")
_DECIMALS: Final = {0: "JPY", 2: "USD", 3: "BHD", 4: "CLF"}  # a currency for each number of decimals that there is
_NO_AMOUNT = -1  # minor units; no payment has them


@dataclass(frozen=True, slots=True, kw_only=True)
class ListSearch:
    """Filters of the console's list; empty or None: no filter. Times are of creation; all limits are inclusive."""

    text: str = ""  # the beginning of an id, a processor's reference, an amount, or words of the description and metadata values
    state: str = ""  # a shown state, or ATTENTION
    processor: str = ""  # where it is booked, or was tried last
    currency: str = ""
    least: Decimal | None = None  # in the payment's own currency
    largest: Decimal | None = None
    since: datetime | None = None
    until: datetime | None = None
    home_currency: str = "USD"  # of the tenant: an amount in `text` may name it

    @property
    def is_plain(self) -> bool:
        """Whether an index has exactly these payments, in the list's order."""
        others = (self.text, self.state, self.processor, self.currency)
        return not any(others) and self.least is None and self.largest is None


class FoundPayment(NamedTuple):
    """A row of the statement `search`."""

    correlation_id: UUID
    status: str
    amount: int
    currency: str
    processor_name: str | None
    attempt: int
    changed_at: datetime
    sequence: int
    created_at: datetime
    id: int
    description: str
    metadata: dict[str, Any] | None
    fee: int | None
    refunded: int
    disputed: bool
    lost: bool

    @property
    def item(self) -> dict[str, Any]:
        """The object of `GET /payments/{id}` without its history, its shown state, and the cursor of what is behind it."""
        shown = shown_state(
            self.status, amount=self.amount, refunded=self.refunded, disputed=self.disputed, lost=self.lost
        )
        return {**full_item(self), "shown": shown.value, "cursor": cursor_after(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPage:
    """A page of the list."""

    found: list[FoundPayment] = field(default_factory=list)
    total: int = 0  # matches on this page and behind it, as far as it was looked
    more: bool = False  # whether there may be more than `total`
    next: str | None = None  # cursor of the next page
    further: str | None = None  # cursor from which to look further back, once there is no next page
    looked_back_to: datetime | None = None
    timed_out: bool = False

    @property
    def items(self) -> list[dict[str, Any]]:
        return [one.item for one in self.found]


async def page_of(tenant_id: int, search: ListSearch, *, limit: int, cursor: str | None = None) -> SearchPage:
    """A page of matches, newest first. Raises Invalid (422) for a cursor that is none."""
    if not search.is_plain:
        return await _page(tenant_id, search, limit=limit, cursor=cursor)
    found, total = await database.concurrently(
        lambda: _page(tenant_id, search, limit=limit, cursor=cursor, most=limit + 1),
        lambda: _count(tenant_id, search),
    )
    return SearchPage(
        found=found.found, next=found.next, timed_out=found.timed_out, total=min(total, COUNTED), more=total > COUNTED
    )


async def items_of(tenant_id: int, search: ListSearch, ids: Sequence[UUID]) -> list[dict[str, Any]]:
    """Those of these payments that match."""
    return (await _page(tenant_id, search, limit=len(ids), ids=ids)).items


async def all_of(tenant_id: int, search: ListSearch) -> AsyncIterator[list[dict[str, Any]]]:
    """All matches, newest first, in chunks of any size, as objects of `queries.all_of`; no connection is held between chunks. Raises TimeoutError."""
    cursor: str | None = None
    while True:
        found = await _exported(tenant_id, search, limit=AT_ONCE, cursor=cursor, most=AT_ONCE, identified=0)
        if found.timed_out:
            raise TimeoutError(f"a part of the search took longer than {TIME_LIMIT:g} s")
        await database.release()
        yield [full_item(one) for one in found.found]
        cursor = found.next or found.further
        if cursor is None:
            return


# -- The statement -------------------------------------------------------------------------------------------

_UNORDERED = {
    "open",
    "exceptions",
    "disputes",
}  # sources that the page leaves for `newest` where they have too many rows


def _source(search: ListSearch, ids: Sequence[UUID] | None) -> str:
    if search.state == ATTENTION:
        return "attention"
    if ids is not None:
        return "ids"
    if search.state in OPEN:
        return "open"
    if search.state in (FAILED, Status.CANCELED, Status.REQUIRES_ACTION):
        return "exceptions"
    if search.state in (Reversal.DISPUTED, Reversal.DISPUTE_LOST):
        return "disputes"
    return "refunded" if search.state in (Reversal.REFUNDED, Reversal.PARTLY_REFUNDED) else "newest"


async def _page(
    tenant_id: int,
    search: ListSearch,
    *,
    limit: int,
    most: int | None = None,
    cursor: str | None = None,
    ids: Sequence[UUID] | None = None,
    identified: int = IDENTIFIED,
) -> SearchPage:
    parameters = {
        **_parameters(tenant_id, search),
        **dict(zip(("before_at", "before_id"), read_cursor(cursor) if cursor else END, strict=True)),
        "source": (source := _source(search, ids)),
        "ids": None if ids is None else list(ids),
        "limit": limit,
        "most": most or (LOOKED_AT if source == "newest" else LOOKED_UP),
        "identified": identified,
    }
    try:
        rows = await within_limits(SQL["search"], parameters)
        if rows[0][1] > parameters["most"] and source in _UNORDERED:
            parameters |= {"source": "newest", "most": most or LOOKED_AT}
            rows = await within_limits(SQL["search"], parameters)
    except TookTooLong:
        return SearchPage(timed_out=True, more=True)
    return _read(rows, limit)


_exported = elsewhere("payments.export")(_page)


async def within_limits(sql: str, parameters: dict[str, Any]) -> list[database.Row]:
    """The rows of a search's statement. Raises TookTooLong after TIME_LIMIT."""

    async def once() -> list[database.Row]:
        async with database.transaction() as conn:
            await database.rows(conn, SQL["limits"], {"limit": round(TIME_LIMIT * 1000)})
            try:
                return await database.rows(conn, sql, parameters, prepare=False)
            except psycopg.errors.QueryCanceled:
                raise TookTooLong from None

    return await database.retrying(once)


class TookTooLong(Exception):
    """The statement was stopped at its limit of time, which is no fault of the database."""


def _read(rows: list[database.Row], limit: int) -> SearchPage:
    matched, _, ends_at, ends_id = rows[0][:4]
    found = [FoundPayment._make(row[4:]) for row in rows if row[4] is not None]
    more = len(found) > limit
    end = None if ends_at is None else cursor_after(_Place(ends_at, ends_id))
    return SearchPage(
        found=found[:limit],
        total=matched,
        more=end is not None,
        next=cursor_after(found[limit - 1]) if more else None,
        further=None if more else end,
        looked_back_to=ends_at,
    )


class _Place(NamedTuple):
    created_at: datetime
    id: int


async def _count(tenant_id: int, search: ListSearch) -> Any:
    parameters = {"tenant": tenant_id, "most": COUNTED + 1, **_window(search)}
    return (await database.fetch(SQL["count"], parameters, prepare=False))[0][0]


# -- Its parameters ----------------------------------------------------------------------------------------------


def _window(search: ListSearch) -> dict[str, datetime]:
    return {"since": search.since or BEGINNING[0], "until": search.until or END[0]}


def _parameters(tenant_id: int, search: ListSearch) -> dict[str, Any]:
    state = None if search.state in ("", ATTENTION) else shown_as(search.state)
    return {
        "tenant": tenant_id,
        "status": state and (state.value if isinstance(state, Status) else Status.SUCCEEDED.value),
        "shown": state and state.value,
        "processor": search.processor or None,
        "currency": search.currency or None,
        "least": search.least if search.least is None else _units(search.least, math.ceil),
        "largest": search.largest if search.largest is None else _units(search.largest, math.floor),
        **{f"decimals_{n}": money.currencies_with(n) for n in _DECIMALS if n != 2},
        **_window(search),
        **_text(search),
    }


def _units(amount: Decimal, rounded: Any) -> list[int]:
    """Minor units by the number of decimals of a currency, from none to four."""
    return [min(rounded(amount.scaleb(decimals)), money.LARGEST + 1) for decimals in range(5)]


def _text(search: ListSearch) -> dict[str, Any]:
    """What the text may mean: all of it, for the person did not say."""
    text = search.text
    words = text.split()
    first, last = ids_beginning(text)
    return {
        "words": [f"%{escaped(word)}%" for word in words] if words else None,
        # JSON writes these two characters differently.
        "coarse_words": [f"%{re.sub(r'["\\]', '%', word)}%" for word in map(escaped, words)] if words else None,
        "reference": text if len(words) == 1 else None,
        "first_id": first,
        "last_id": last,
        "exactly": _amounts(search) if words else None,
    }


def escaped(word: str) -> str:
    return re.sub(r"([%_\\])", r"\\\1", word)


def ids_beginning(text: str) -> tuple[UUID, UUID] | tuple[None, None]:
    """The first and the last id with this beginning; a shortened one has an ellipsis."""
    digits = text.lower().partition("…")[0].replace("-", "")
    if not _ID.fullmatch(digits):
        return None, None
    return UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))


def _amounts(search: ListSearch) -> list[int]:
    """The text as minor units by the number of decimals of a currency."""
    found = [_NO_AMOUNT] * 5
    for decimals, currency in _DECIMALS.items():
        home = search.currency or search.home_currency
        try:
            found[decimals] = money.typed_amount(search.text, home if money.exponent(home) == decimals else currency)
        except AmountRefused:
            pass
    return found
