"""Job `payments.export`: a file with payments, as CSV for spreadsheets or as NDJSON for programs."""

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta

from payments.api.exports import FULL_COLUMNS, csv_head, csv_text
from payments.books import queries, search
from payments.books.queries import PaymentFilters
from payments.books.search import ATTENTION, LONGEST_TEXT, ListSearch
from payments.money import CURRENCIES, LARGEST
from payments.states import SHOWN_LOOKS, Status
from queueing.jobs.kinds import Context, kind
from registry.edge.api import ENCODER

NAME = "payments.export"
TIMEOUT = 6 * 3600.0  # seconds

Moment = Annotated[datetime, Meta(tz=True)]


Amount = Annotated[Decimal, Meta(description="in the payment's own currency, a text such as 19.90")]


class MatchingInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """The filters of the console's list. States are as shown there: a succeeded payment may be disputed or refunded."""

    search: Annotated[str, Meta(max_length=LONGEST_TEXT)] = ""
    state: Annotated[str, Meta(max_length=20)] = ""
    processor: Annotated[str, Meta(max_length=63)] = ""
    currency: Annotated[str, Meta(max_length=3)] = ""
    amount_from: Amount | None = None
    amount_to: Amount | None = None
    from_: Moment | None = msgspec.field(name="from", default=None)
    to: Moment | None = None
    home_currency: Annotated[str, Meta(max_length=3, description="of amounts in `search`")] = "USD"

    def __post_init__(self) -> None:
        if self.state and self.state not in (ATTENTION, *SHOWN_LOOKS):
            raise ValueError(f"state wants one of {', '.join([*SHOWN_LOOKS, ATTENTION])}")
        if not {self.currency or self.home_currency, self.home_currency} <= set(CURRENCIES):
            raise ValueError("currency is not an ISO 4217 code")
        if any(amount is not None and not 0 <= amount <= LARGEST for amount in (self.amount_from, self.amount_to)):
            raise ValueError("an amount is out of range")
        if "\0" in self.search + self.processor:
            raise ValueError("a text contains NUL")

    @classmethod
    def of(cls, asked: ListSearch) -> Self:
        return cls(
            search=asked.text,
            state=asked.state,
            processor=asked.processor,
            currency=asked.currency,
            amount_from=asked.least,
            amount_to=asked.largest,
            from_=asked.since,
            to=asked.until,
            home_currency=asked.home_currency,
        )

    @property
    def asked(self) -> ListSearch:
        return ListSearch(
            text=self.search,
            state=self.state,
            processor=self.processor,
            currency=self.currency,
            least=self.amount_from,
            largest=self.amount_to,
            since=self.from_,
            until=self.to,
            home_currency=self.home_currency,
        )


class ExportInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The payments of the file, as in `GET /payments` or, with `matching`, as in the console's list; and its format."""

    format: Literal["csv", "ndjson"] = "csv"
    gzip: bool = False
    status: Status | None = None
    processor: Annotated[str, Meta(max_length=63)] | None = None
    from_: Moment | None = msgspec.field(name="from", default=None)
    to: Moment | None = None
    matching: MatchingInput | None = None

    def __post_init__(self) -> None:
        if self.matching and (self.status or self.processor or self.from_ or self.to):
            raise ValueError("matching has all filters, and stands alone")


@kind(NAME, input=ExportInput, runs="loop", timeout=TIMEOUT, tenant_concurrency=2)
async def export(context: Context, asked: ExportInput) -> dict[str, int]:
    """Write payments into a file, with fees, refunds and metadata."""
    total, blocks = await _payments(context.tenant_id, asked)
    done = 0
    name = f"payments.{asked.format}{'.gz' if asked.gzip else ''}"
    content_type = "application/gzip" if asked.gzip else TYPES[asked.format]
    async with context.file(name, content_type, gzip=asked.gzip) as file:
        if asked.format == "csv":
            await file.write(csv_head(FULL_COLUMNS))
        async for items in blocks:
            await file.write(LINES[asked.format](items))
            done += len(items)
            context.progress(done, total and max(total, done), "payments written")
    return {"payments": done, "size": file.size}


async def _payments(tenant_id: int, asked: ExportInput) -> tuple[int | None, AsyncIterator[list[dict[str, Any]]]]:
    """Their number, None if it is not known before, and the payments in blocks."""
    if asked.matching and not asked.matching.asked.is_plain:
        return None, search.all_of(tenant_id, asked.matching.asked)
    times = asked.matching or asked
    filters = PaymentFilters(asked.status, asked.processor, times.from_, times.to)
    return await queries.count_of(tenant_id, filters), queries.all_of(tenant_id, filters, full=True)


def _csv(items: list[dict[str, Any]]) -> bytes:
    return csv_text(FULL_COLUMNS, [{**item, "metadata": ENCODER.encode(item["metadata"]).decode()} for item in items])


TYPES = {"csv": "text/csv; charset=utf-8", "ndjson": "application/x-ndjson"}
LINES: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {"csv": _csv, "ndjson": ENCODER.encode_lines}
