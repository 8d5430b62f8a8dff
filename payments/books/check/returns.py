"""Compare refunds and disputes with their ledger lines. A payment's sums of refunds are compared with the payment."""

from collections.abc import AsyncIterator
from typing import Any

from payments.books.check.reading import SQL, money, payment_named
from registry.tenants.books import BookDifference, BookSlice, book_part, read, slices


@book_part("refunds")
async def refunds(tenant_id: int, after: Any) -> AsyncIterator[BookSlice]:
    """Every refund, by id."""
    async for bounds in slices(SQL["refund_page"], SQL["refund_last"], tenant_id, after):
        rows = await read(SQL["refunds"], {"tenant": tenant_id, "after": bounds.after, "last": bounds.last})
        differences = [_refund(*row) for row in rows]
        yield BookSlice(rows=bounds.rows, share=bounds.share, after=bounds.last, differences=differences)


def _refund(
    refund: Any,
    correlation: Any,
    payment: int,
    amount: int,
    currency: str,
    status: str,
    lines: int,
    back: int,
    held: int,
) -> BookDifference:
    wanted = amount if status == "returned" else 0
    return _of_lines(
        "refund", str(refund), correlation, payment, f"it is {status}", wanted, currency, lines, back, held
    )


@book_part("disputes")
async def disputes(tenant_id: int, after: Any) -> AsyncIterator[BookSlice]:
    """Every dispute, by id."""
    async for bounds in slices(SQL["dispute_page"], SQL["dispute_last"], tenant_id, after):
        rows = await read(SQL["disputes"], {"tenant": tenant_id, "after": bounds.after, "last": bounds.last})
        differences = [_dispute(*row) for row in rows]
        yield BookSlice(rows=bounds.rows, share=bounds.share, after=bounds.last, differences=differences)


def _dispute(
    reference: str, correlation: Any, payment: int, withdrawn: int, currency: str, lines: int, back: int, held: int
) -> BookDifference:
    why = f"{money(withdrawn, currency)} is withheld"
    return _of_lines("dispute", reference, correlation, payment, why, withdrawn, currency, lines, back, held)


def _of_lines(
    what: str,
    name: str,
    correlation: Any,
    payment: int,
    why: str,
    wanted: int,
    currency: str,
    lines: int,
    back: int,
    held: int,
) -> BookDifference:
    """`back` was taken from the balance, `held` from what the processor holds."""
    subject = f"{what} {name} of {payment_named(correlation, payment)}"
    if not lines:
        kind, stored = f"{what}.without_line", "no ledger lines"
    elif (back, held) != (wanted, wanted):
        kind = f"{what}.lines"
        stored = f"{lines} ledger lines, which take {money(back, currency)} from the balance and {money(held, currency)} from the processor"
    else:
        kind, stored = (
            f"{what}.lines",
            f"{lines} ledger lines, some too many or with another account, currency or processor",
        )
    if not correlation:
        kind, stored = f"{what}.stray", f"{lines} ledger lines"
    expected = f"pairs of lines that take {money(wanted, currency)}, because {why}"
    return BookDifference(kind=kind, subject=subject, stored=stored, expected=expected)
