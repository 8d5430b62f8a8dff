"""Requests and responses of payments that both halves share."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypedDict

import httpx2
import msgspec

from registry_client._responses import decode
from registry_client.models.common import Scalar
from registry_client.models.payments import AcceptedPayment, BatchResult, PaymentStatus

BATCH_AT_MOST = 1000  # payments
REPLAYED = "Idempotent-Replayed"


class PaymentFields(TypedDict, total=False):
    """Optional fields of a new payment (docs/api.md)."""

    currency: str
    description: str
    metadata: dict[str, Scalar]
    processor: str
    scheduled_for: datetime
    priority: int
    payment_method: str
    customer: str
    off_session: bool
    return_url: str


class PaymentFilters(TypedDict, total=False):
    """Filters of lists and exports; times of creation, both inclusive."""

    status: PaymentStatus
    processor: str
    from_: datetime
    to: datetime


class BatchResults(msgspec.Struct, frozen=True):
    """The answer to a batch."""

    results: list[BatchResult]


def filters_of(filters: Mapping[str, object]) -> dict[str, Any]:
    """The filters as query parameters."""
    return {name.rstrip("_"): value for name, value in filters.items()}


def is_replayed(headers: Mapping[str, str]) -> bool:
    return headers.get(REPLAYED, "") == "true"


def accepted(response: httpx2.Response) -> AcceptedPayment:
    """The accepted payment. A service that does not know its own address gives addresses without a host."""
    found = decode(response, AcceptedPayment)
    addresses = {name: str(response.url.join(getattr(found, name))) for name in ("status_url", "live_url")}
    return msgspec.structs.replace(found, replayed=is_replayed(response.headers), **addresses)
