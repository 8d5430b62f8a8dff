"""The bodies of requests that accept payments, and their decoders. What a tenant allows is checked in checks.py."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar
from uuid import UUID

import msgspec
from msgspec import Meta

from payments import money
from payments.errors import AmountRefused

BATCH_ITEMS = 1000

type Scalar = str | int | float | bool | None


class Amount(Decimal):
    """An amount as a JSON number or as plain text. `decode` reads it, because Decimal itself accepts texts such as "1e3" or "NaN"."""

    json_schema: ClassVar[dict[str, Any]] = {
        "anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": money.PLAIN}]
    }


def decode(kind: type, value: Any) -> Any:
    """Decoding hook of msgspec for Amount. A JSON fraction arrives as an exact Decimal, or as a float when the body is read twice."""
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
    priority: Annotated[int, Meta(ge=0, le=9, description="9 is the highest")] = 0
    payment_method: Annotated[str, Meta(description="kind stripe: a saved payment method, pm_…")] | None = None
    customer: Annotated[str, Meta(description="kind stripe: whose it is, cus_…")] | None = None
    return_url: Annotated[
        str, Meta(max_length=2000, description="where the payer goes back to; https:// for live tenants")
    ] = ""
    off_session: Annotated[bool, Meta(description="kind stripe: the payer is not there to confirm")] = False


class BatchRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /payments/batch`. Items are decoded one by one, so that an invalid one does not reject the others."""

    items: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=BATCH_ITEMS)]


PAYMENT = msgspec.json.Decoder(PaymentRequest, dec_hook=decode, float_hook=money.read_number)
BATCH = msgspec.json.Decoder(BatchRequest)
