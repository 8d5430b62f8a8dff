"""Compare the ledger's lines with what they were written for; balances and the summary with what the lines add up to."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from psycopg import AsyncConnection

from payments.books import ledger, summary
from payments.books.check.reading import SQL, money, payment_named
from registry.data import database
from registry.tenants.books import BookDifference, BookSlice, book_part, read, slices, snapshot


@book_part("ledger lines")
async def lines(tenant_id: int, after: Any) -> AsyncIterator[BookSlice]:
    """Every line, by id. Its amount is compared by the part of what it was written for."""
    async for bounds in slices(SQL["line_page"], SQL["line_last"], tenant_id, after):
        rows = await read(SQL["lines"], {"tenant": tenant_id, "after": bounds.after, "last": bounds.last})
        differences = [_stray(*row) for row in rows]
        yield BookSlice(rows=bounds.rows, share=bounds.share, after=bounds.last, differences=differences)


def _stray(
    line: int,
    account: str,
    amount: int,
    currency: str,
    cause: str,
    cause_id: int,
    payment: int,
    correlation: Any,
    of: Any,
) -> BookDifference:
    stored = f"{money(amount, currency)} on account {account} for {payment_named(correlation, payment)}"
    if cause == "payment" or not correlation:
        expected = "no line, or a payment that it belongs to"
    elif of is None:
        stored, expected = (
            f"{stored}, {cause} {cause_id}, which does not exist",
            f"no line, or a {cause} that it belongs to",
        )
    else:
        stored, expected = f"{stored}, {cause} {cause_id}", f"for the payment of that {cause}, whose id is {of}"
    return BookDifference(kind="ledger.stray", subject=f"ledger line {line}", stored=stored, expected=expected)


@book_part("balances")
async def balances(tenant_id: int, _after: Any) -> AsyncIterator[BookSlice]:
    """What the balance and the summary say, against the sums of all ledger lines, in one snapshot."""
    differences = await database.retrying(lambda: _recounted(tenant_id))
    yield BookSlice(rows=1, share=1.0, differences=differences)


async def _recounted(tenant_id: int) -> list[BookDifference]:
    bounds = {
        f"{name}_{side}": at
        for name, span in summary.spans(None, None).items()
        for side, at in zip(("from", "to"), span, strict=True)
    }
    async with snapshot() as conn:
        recounted = await _rows(conn, SQL["recount"], {"tenant": tenant_id})
        balance = await _rows(conn, ledger.SQL["balance"], {"tenant": tenant_id})
        summed = await _rows(conn, summary.SQL["summary"], {"tenant": tenant_id, "currency": None, **bounds})
    owed: Counter[str] = Counter()
    booked: dict[tuple[str, str], tuple[int, int]] = {}
    for _processor, name, currency, payments, gross, owing in recounted:
        owed[currency] += owing
        before = booked.get((name, currency), (0, 0))
        booked[name, currency] = (before[0] + payments, before[1] + gross)
    shown = {(name, currency): (payments, amount) for name, currency, payments, amount in summed if payments or amount}
    return [*_of_balance(dict(balance), owed), *_of_summary(shown, booked)]


async def _rows(conn: AsyncConnection, sql: str, params: Mapping[str, Any]) -> list[database.Row]:
    return await (await conn.execute(sql, params, prepare=False)).fetchall()


def _of_balance(shown: dict[str, int], owed: Counter[str]) -> Iterator[BookDifference]:
    for currency in sorted(shown.keys() | owed.keys()):
        if shown.get(currency, 0) != owed[currency]:
            yield BookDifference(
                kind="balance",
                subject=f"balance in {currency}",
                stored=money(shown.get(currency, 0), currency),
                expected=f"{money(owed[currency], currency)}, as all ledger lines add up to",
            )


def _of_summary(shown: dict[Any, tuple[int, int]], booked: dict[Any, tuple[int, int]]) -> Iterator[BookDifference]:
    for name, currency in sorted(shown.keys() | booked.keys()):
        says, lines = shown.get((name, currency), (0, 0)), booked.get((name, currency), (0, 0))
        if says != lines:
            yield BookDifference(
                kind="summary",
                subject=f"summary of processor {name or 'that does not exist'} in {currency}",
                stored=f"{says[0]} payments, {money(says[1], currency)}",
                expected=f"{lines[0]} payments, {money(lines[1], currency)}, as the ledger lines add up to",
            )
