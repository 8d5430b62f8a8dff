"""Check requests for payments: all faults of their fields, and the limits of their tenant."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

import msgspec

from payments import money
from payments.errors import AmountRefused, PaymentsBlocked
from payments.intake.payment import NewPayment
from payments.intake.requests import PaymentRequest, Scalar, decode
from payments.routing import accounts
from registry.data import clock
from registry.edge.cards import CARD, holds_card
from registry.edge.unique import check_key, check_unique
from registry.errors import Invalid, Problem
from registry.http.client import BadAddress
from registry.http.ssrf import parted
from registry.models import Tenant
from registry.tenants.access import Principal

METADATA_PAIRS = 50
REFERENCES = {"paymentMethod": "pm_", "customer": "cus_"}  # prefixes of ids of the processor, by field
FURTHEST = timedelta(days=366)  # how far ahead a payment may be scheduled
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)  # a past time means now; refusing all past times would refuse replays
WHOLE_NUMBERS = range(-(2**63), 2**63)  # in metadata

_reference = re.compile("[a-z]{2,4}_[A-Za-z0-9_]{1,200}")
_FIELDS = frozenset(field.encode_name for field in msgspec.structs.fields(PaymentRequest))

type Faults = list[dict[str, str]]
type Fault = Callable[[str, str], None]  # (field, message): adds a fault


class CheckedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a payment, checked against the tenant's current settings."""

    tenant_id: int
    request: PaymentRequest
    named: UUID | None  # the correlation id that the sender chose, directly or by an Idempotency-Key
    payment: NewPayment | None  # None if the amount cannot be read
    refusal: Problem | None = None  # why the payment is not accepted
    for_now: bool = False  # the refusal depends only on settings that can change


async def check(request: PaymentRequest, principal: Principal, idempotency_key: str = "") -> CheckedRequest:
    """The requested payment, or the refusal with all faults: of the fields, and of the tenant's limits."""
    faults: Faults = []
    named: UUID | None = None
    try:
        named = _named(request, principal, idempotency_key)
    except Invalid as error:
        faults += error.errors
    payment = new_payment(request, principal.tenant_id, named, principal.currency, faults)
    _check_return_url(request, principal, faults)
    fixed = len(faults)
    await _check_settings(request, payment, principal, faults)
    return CheckedRequest(
        tenant_id=principal.tenant_id,
        request=request,
        named=named,
        payment=payment,
        refusal=_refusal(principal, faults),
        for_now=not fixed,
    )


def _refusal(principal: Principal, faults: Faults) -> Problem | None:
    if faults:
        return Invalid("some fields are not acceptable", errors=faults)
    if principal.blocked and principal.mode == Tenant.Mode.LIVE:  # a sandbox is never blocked
        return PaymentsBlocked(principal.blocked)
    return None


async def _check_settings(
    request: PaymentRequest, payment: NewPayment | None, principal: Principal, faults: Faults
) -> None:
    """Add the faults that depend on the tenant's settings."""
    if payment is not None and principal.max_amount is not None and payment.amount > principal.max_amount:
        limit = money.decimal_text(principal.max_amount, payment.currency)
        faults.append({"field": "amount", "message": f"is above this tenant's limit of {limit}"})
    if request.processor is not None and not await accounts.has_processor(principal.tenant_id, request.processor):
        faults.append({"field": "processor", "message": "is not the name of one of this tenant's processors"})


async def every_fault(error: Invalid, body: bytes, principal: Principal) -> Invalid:
    """Add to the error of an unreadable body the faults of its readable fields."""
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
        if (more := (await check(readable, principal)).refusal) and more.errors:
            if named == {"body"} and "body" not in data:  # a number that made only the body as a whole unreadable
                error.errors.clear()
            error.errors += [fault for fault in more.errors if fault["field"] not in named]
    return error


# -- The sender's id -----------------------------------------------------------------------------------------


def key_id(principal: Principal, idempotency_key: str) -> UUID:
    """The correlation id of an `Idempotency-Key` header: the same key of the same tenant gives the same id."""
    check_key(idempotency_key)
    return uuid5(NAMESPACE_URL, f"registry:{principal.tenant_id}:{idempotency_key}")


def _named(request: PaymentRequest, principal: Principal, idempotency_key: str) -> UUID | None:
    """The id that the sender chose. Raises Invalid (422) for a value that cannot be unique."""
    if request.correlation_id is None:
        return key_id(principal, idempotency_key) if idempotency_key else None
    check_unique("correlationId", request.correlation_id)
    return request.correlation_id


# -- The payment ---------------------------------------------------------------------------------------------


def new_payment(
    request: PaymentRequest, tenant_id: int, named: UUID | None, default: str, faults: Faults
) -> NewPayment | None:
    """The payment that `request` describes; `default` is the currency of a request that names none.

    Adds faults that do not depend on the tenant's settings. None if the amount cannot be read.
    """

    def fault(field: str, message: str) -> None:
        faults.append({"field": field, "message": message})

    currency = default if request.currency is None else request.currency
    amount = _amount(request, currency, fault)
    _check_metadata(request, fault)
    if request.scheduled_for and not EARLIEST <= request.scheduled_for <= clock.now() + FURTHEST:
        fault("scheduledFor", f"is before {EARLIEST.year} or more than {FURTHEST.days} days ahead")
    method = _method_of(request, fault)
    _check_cards(request, fault)
    if not amount or currency not in money.CURRENCIES:
        return None
    return NewPayment(
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
        return_url=request.return_url,
    )


def _check_return_url(request: PaymentRequest, principal: Principal, faults: Faults) -> None:
    """The rules for addresses of webhooks, except that it is not looked up: the payer's browser goes there."""
    if request.return_url:
        try:
            parted(request.return_url, tls_only=principal.mode == Tenant.Mode.LIVE)
        except BadAddress as error:
            faults.append({"field": "returnUrl", "message": str(error)})


def _amount(request: PaymentRequest, currency: str, fault: Fault) -> int:
    """The amount in minor units; 0 if it cannot be read."""
    if currency not in money.CURRENCIES:
        fault("currency", "is not an ISO 4217 currency code such as BRL")
    try:
        return money.minor_units(request.amount, currency)
    except AmountRefused as error:
        fault("amount", error.detail)
        return 0


def _check_metadata(request: PaymentRequest, fault: Fault) -> None:
    if request.metadata and len(request.metadata) > METADATA_PAIRS:
        fault("metadata", f"has {len(request.metadata)} pairs; at most {METADATA_PAIRS}")
    elif request.metadata and any(isinstance(n, int) and n not in WHOLE_NUMBERS for n in request.metadata.values()):
        fault("metadata", "has a whole number of more than 64 bits")


def _check_cards(request: PaymentRequest, fault: Fault) -> None:
    if holds_card(request.description):
        fault("description", CARD)
    if request.metadata and any(holds_card(f"{key}: {_digits(one)}") for key, one in request.metadata.items()):
        fault("metadata", CARD)


def _digits(value: Scalar) -> Scalar:
    """A whole number without exponent: 4.2e15 hides its digits from the check for card numbers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _method_of(request: PaymentRequest, fault: Fault) -> dict[str, Any] | None:
    """The payment method: ids only. The answer does not repeat an invalid value, which may be a card number."""
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
            fault("offSession", "requires a paymentMethod: no payer is present to enter one")
        method["offSession"] = True
    return method or None
