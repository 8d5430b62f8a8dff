"""`GET /payments…`: the status of a payment, a payment with its history, lists and summaries."""

from collections.abc import AsyncIterator, Callable
from uuid import UUID

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

from payments.api.exports import Blocks, begun, csv_lines, json_lines
from payments.books import queries
from payments.books import summary as summaries
from payments.errors import UnknownPayment
from payments.intake.spilling import missing
from payments.money import CURRENCIES
from payments.states import Status
from registry.data.reading import elsewhere
from registry.edge.api import KEYLESS, PROBLEMS, api, described, json_response
from registry.edge.handler import lean
from registry.edge.parameters import EXTENDED_WHEN, WORD, Query, Values, choice, cursor_page
from registry.telemetry import context
from registry.tenants.access import Principal, authorize

LIST_LIMIT, PAGE_AT_MOST = 50, 500  # items of a page

LIST = Query(
    {
        "status": choice(*Status.values),
        "processor": WORD,
        **EXTENDED_WHEN,
        **cursor_page(LIST_LIMIT, most=PAGE_AT_MOST),
    },
    strict=True,
)
SUMMARY = Query(
    {**EXTENDED_WHEN, "currency": choice(*sorted(CURRENCIES), message="is not an ISO 4217 currency code such as BRL")}
)


def payment_id(text: str) -> UUID:
    """The id in a path. Raises UnknownPayment (404) for a text that is no UUID."""
    try:
        found = UUID(text)
    except ValueError:
        raise UnknownPayment from None
    context.PAYMENT.set(str(found))
    return found


# -- One payment -----------------------------------------------------------------------------------------------


@api.get(
    "/payments/{id}/status",
    tags=["payments"],
    summary="The status of a payment",
    openapi_extra=described("Its status object", 404),
)
async def status(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await authorize(request, "read", keyless=True)
    correlation_id = payment_id(id)
    found = await queries.status_of(principal.tenant_id, correlation_id)
    if found is None:
        raise missing(principal.tenant_id, correlation_id)
    return json_response(found, headers=headers)


@api.get(
    "/payments/{id}",
    tags=["payments"],
    summary="A payment with its attempts and its timeline",
    openapi_extra=described("The payment", 404),
)
async def detail(request: HttpRequest, id: str) -> HttpResponse:
    principal, headers = await authorize(request, "read", keyless=True)
    correlation_id = payment_id(id)
    found = await queries.detail_of(principal.tenant_id, correlation_id)
    if found is None:
        raise missing(principal.tenant_id, correlation_id)
    return json_response(found, headers=headers)


# -- Lists -----------------------------------------------------------------------------------------------------

read_page = elsewhere("payments.list")(queries.page_of)


@lean
async def browse(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    """A page as JSON; all payments as a stream of CSV or NDJSON, by the Accept header."""
    principal, headers = await authorize(request, "read", keyless=True)
    asked = LIST.read(request)
    filters = _filters(asked)
    accept = request.META.get("HTTP_ACCEPT", "")
    if "text/csv" in accept:
        return await _export(csv_lines, principal, filters, "text/csv; charset=utf-8", "payments.csv")
    if "application/x-ndjson" in accept:
        return await _export(json_lines, principal, filters, "application/x-ndjson", "payments.ndjson")
    page = await read_page(principal.tenant_id, filters, limit=asked["limit"], cursor=asked["cursor"])
    return json_response(page, headers=headers)


def _filters(asked: Values) -> queries.PaymentFilters:
    return queries.PaymentFilters(
        status=asked["status"], processor=asked["processor"], from_=asked["from"], to=asked["to"]
    )


async def _export(
    lines: Callable[[Blocks], AsyncIterator[bytes]],
    principal: Principal,
    filters: queries.PaymentFilters,
    kind: str,
    name: str,
) -> StreamingHttpResponse:
    """A stream that begins once its first block is read: a database that is away is a 503, not a stream cut short."""
    blocks = await begun(queries.all_of(principal.tenant_id, filters))
    return StreamingHttpResponse(
        lines(blocks), content_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


@api.get(
    "/payments-summary",
    tags=["payments"],
    summary="Booked payments per processor, in a window of requestedAt",
    openapi_extra=described("Requests and amount per processor", 422, query=SUMMARY),
)
async def summary(request: HttpRequest) -> HttpResponse:
    principal, headers = await authorize(request, "read", keyless=True)
    asked = SUMMARY.read(request)
    found = await summaries.summary(
        tenant_id=principal.tenant_id, currency=asked["currency"], start=asked["from"], end=asked["to"]
    )
    return json_response(found, headers=headers)


api.describe(
    "/payments",
    "get",
    {
        "tags": ["payments"],
        "operationId": "browse_payments",
        "security": KEYLESS,
        "summary": "A page of payments with the total; text/csv or application/x-ndjson stream everything",
        "parameters": LIST.describe(),
        "responses": {
            "200": {"description": "A page"},
            **{status: PROBLEMS[status] for status in ("401", "403", "422", "429")},
        },
    },
)


api.add_examples(__file__)
