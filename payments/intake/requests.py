"""What callers may send: the structs of the API's bodies, and the way from one to an order."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, ClassVar
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

import msgspec
from msgspec import Meta

from payments import money
from payments.errors import AmountRefused, PaymentsBlocked
from payments.intake.intake import Order
from payments.routing import accounts
from registry.edge.cards import CARD, holds_card
from registry.edge.unique import check_key, check_unique
from registry.errors import Invalid, Problem
from registry.models import Tenant
from registry.tenants.access import Principal

METADATA_PAIRS = 50
REFERENCES = {"paymentMethod": "pm_", "customer": "cus_"}  # how the ids at the processor begin, that a sender may name
_reference = re.compile("[a-z]{2,4}_[A-Za-z0-9_]{1,200}")
BATCH_ITEMS = 1000
LIST_FIELDS = ("status", "processor", "from", "to", "limit", "cursor")  # of `GET /payments`
LIST_LIMIT, PAGE_AT_MOST = 50, 500  # items of a page
LONGEST_WAIT = 30  # seconds that a long poll or `Prefer: wait` may hold a request
FURTHEST = timedelta(days=366)  # how far ahead a payment may be scheduled
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)  # a past time is "now"; refusing it would refuse replays
WHOLE_NUMBERS = range(-(2**63), 2**63)  # in metadata

type Scalar = str | int | float | bool | None


class Amount(Decimal):
    """An amount as a JSON number or as plain text. Read by `decode`: Decimal itself takes texts that no one should send."""

    json_schema: ClassVar[dict[str, Any]] = {
        "anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": money.PLAIN}]
    }


def decode(kind: type, value: Any) -> Any:
    """msgspec's hook for types of ours. JSON's fractions arrive as Decimal, digit by digit, or as float when read twice."""
    if kind is not Amount:
        raise NotImplementedError
    try:
        if isinstance(value, str):
            return Amount(money.read_amount(value))
    except AmountRefused as error:
        raise ValueError(error.detail) from None
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return Amount(str(value) if isinstance(value, float) else value)
    raise ValueError("must be a number, or a text such as 19.90")


class PaymentRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The body of `POST /payments`."""

    amount: Annotated[Amount, Meta(description="at most as many decimals as the currency has", examples=["19.90"])]
    correlation_id: Annotated[UUID, Meta(description="the sender's id; made here when missing")] | None = None
    currency: Annotated[str, Meta(description="ISO 4217; the tenant's when missing", examples=["BRL"])] | None = None
    description: Annotated[str, Meta(max_length=500)] = ""
    metadata: dict[Annotated[str, Meta(min_length=1, max_length=100)], Scalar] | None = None
    processor: Annotated[str, Meta(max_length=63, description="send it to this one only")] | None = None
    scheduled_for: Annotated[datetime, Meta(tz=True)] | None = None
    priority: Annotated[int, Meta(ge=0, le=9, description="9 goes first")] = 0
    payment_method: Annotated[str, Meta(description="kind stripe: a saved payment method, pm_…")] | None = None
    customer: Annotated[str, Meta(description="kind stripe: whose it is, cus_…")] | None = None
    off_session: Annotated[bool, Meta(description="kind stripe: the payer is not there to confirm")] = False


class BatchRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /payments/batch`: items are read one by one, so that a bad one spoils no other."""

    items: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=BATCH_ITEMS)]


PAYMENT = msgspec.json.Decoder(PaymentRequest, dec_hook=decode, float_hook=money.read_number)
_FIELDS = frozenset(field.encode_name for field in msgspec.structs.fields(PaymentRequest))
BATCH = msgspec.json.Decoder(BatchRequest)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a payment, checked against the tenant's current settings."""

    tenant_id: int
    request: PaymentRequest
    named: UUID | None  # the correlation id that the sender chose, directly or by an Idempotency-Key
    order: Order | None  # None where no amount can be read
    refusal: Problem | None = None  # why the payment is not accepted
    for_now: bool = False  # the refusal depends only on settings that can change


def key_id(principal: Principal, idempotency_key: str) -> UUID:
    """The correlation id that an `Idempotency-Key` header stands for: the same key of the same tenant, the same id."""
    check_key(idempotency_key)
    return uuid5(NAMESPACE_URL, f"registry:{principal.tenant_id}:{idempotency_key}")


async def every_fault(error: Invalid, body: bytes, principal: Principal) -> Invalid:
    """`error` of a body that could not be read, with what the tenant would refuse of the fields that could."""
    data = json.loads(body)
    if isinstance(data, dict):
        named = {fault["field"] for fault in error.errors}
        well = {
            name: value for name, value in data.items() if name in _FIELDS and name not in named and value is not None
        }
        try:
            readable = msgspec.convert({"amount": 1, **well}, PaymentRequest, dec_hook=decode)
        except msgspec.ValidationError:
            return error  # a field of a wrong type, in a body that also has a NUL character
        if (more := (await asked_of(readable, principal)).refusal) and more.errors:
            if named == {"body"} and "body" not in data:  # a number that only the whole could not be read with
                error.errors.clear()
            error.errors += [fault for fault in more.errors if fault["field"] not in named]
    return error


async def asked_of(request: PaymentRequest, principal: Principal, idempotency_key: str = "") -> Asked:
    """What `request` asks for, and every fault of it: those of its own, and those that its tenant finds now."""
    faults: list[dict[str, str]] = []
    named: UUID | None = None
    try:
        named = _named(request, principal, idempotency_key)
    except Invalid as error:
        faults += error.errors
    order = understood(request, principal.tenant_id, named, principal.currency, faults)
    fixed = len(faults)
    if order is not None and principal.max_amount is not None and order.amount > principal.max_amount:
        limit = money.decimal_text(principal.max_amount, order.currency)
        faults.append({"field": "amount", "message": f"is above this tenant's limit of {limit}"})
    if request.processor is not None and not await accounts.has_processor(principal.tenant_id, request.processor):
        faults.append({"field": "processor", "message": "is not the name of one of this tenant's processors"})
    refusal: Problem | None = None
    if faults:
        refusal = Invalid("some fields are not acceptable", errors=faults)
    elif principal.blocked and principal.mode == Tenant.Mode.LIVE:  # a sandbox is never blocked
        refusal = PaymentsBlocked(principal.blocked)
    return Asked(
        tenant_id=principal.tenant_id,
        request=request,
        named=named,
        order=order,
        refusal=refusal,
        for_now=not fixed,
    )


def _named(request: PaymentRequest, principal: Principal, idempotency_key: str) -> UUID | None:
    """What the sender calls it. Raises Invalid (422) for what cannot be one thing's name."""
    if request.correlation_id is None:
        return key_id(principal, idempotency_key) if idempotency_key else None
    check_unique("correlationId", request.correlation_id)
    return request.correlation_id


def understood(
    request: PaymentRequest, tenant_id: int, named: UUID | None, default: str, faults: list[dict[str, str]]
) -> Order | None:
    """The order that `request` describes; `default` is the currency of a request that names none.

    Faults that do not depend on the tenant's settings are added to `faults`. None where no amount can be read."""

    def fault(field: str, message: str) -> None:
        faults.append({"field": field, "message": message})

    amount, currency = 0, default if request.currency is None else request.currency
    if currency not in money.CURRENCIES:
        fault("currency", "is not an ISO 4217 currency code such as BRL")
    try:
        amount = money.minor_units(request.amount, currency)
    except AmountRefused as error:
        fault("amount", error.detail)
    if request.metadata and len(request.metadata) > METADATA_PAIRS:
        fault("metadata", f"has {len(request.metadata)} pairs; at most {METADATA_PAIRS}")
    elif request.metadata and any(isinstance(n, int) and n not in WHOLE_NUMBERS for n in request.metadata.values()):
        fault("metadata", "has a whole number of more than 64 bits")
    if request.scheduled_for and not EARLIEST <= request.scheduled_for <= datetime.now(UTC) + FURTHEST:
        fault("scheduledFor", f"is before {EARLIEST.year} or more than {FURTHEST.days} days ahead")
    method = _method_of(request, fault)
    if holds_card(request.description):
        fault("description", CARD)
    if request.metadata and any(holds_card(f"{key}: {_digits(one)}") for key, one in request.metadata.items()):
        fault("metadata", CARD)
    if not amount or currency not in money.CURRENCIES:
        return None
    return Order(
        tenant_id=tenant_id,
        correlation_id=named or uuid4(),
        amount=amount,
        currency=currency,
        description=request.description,
        metadata=request.metadata,
        processor=request.processor or "",
        scheduled_for=request.scheduled_for,
        priority=request.priority,
        method=method,
    )


def _digits(value: Scalar) -> Scalar:
    """A whole number without its exponent: 4.2e15 would hide its digits."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _method_of(request: PaymentRequest, fault: Callable[[str, str], None]) -> dict[str, Any] | None:
    """How it is to be paid: ids only. What is no id is not repeated in the answer, for it may be a card's number."""
    method: dict[str, Any] = {}
    for field, value in (("paymentMethod", request.payment_method), ("customer", request.customer)):
        if value is None:
            continue
        prefix = REFERENCES[field]
        if holds_card(value):
            fault(field, CARD)
        elif not (value.startswith(prefix) and _reference.fullmatch(value)):
            fault(field, f"wants the id that the processor gave it, such as {prefix}1Abc")
        method[field] = value
    if request.off_session:
        if not method.get("paymentMethod"):
            fault("offSession", "wants a paymentMethod: nobody is there to enter one")
        method["offSession"] = True
    return method or None
