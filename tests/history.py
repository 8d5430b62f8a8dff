"""Statistics of past attempts for tests, as settling would have counted them."""

import math
from datetime import datetime, timedelta

from payments.models import AttemptRollup, Processor, Rollup
from payments.models.statistics import HOUR, MINUTE, PER_DOUBLING
from payments.states import FAILED, SUCCEEDED


def bucket_of(milliseconds: float) -> int:
    return math.floor(PER_DOUBLING * math.log2(max(1.0, milliseconds)))


def make_history(
    processor: Processor,
    at: datetime,
    *,
    succeeded: int = 0,
    failed: int = 0,
    settled_in: float = 50,
    latency: int = 40,
    amount: int = 1990,
    currency: str = "BRL",
) -> None:
    """Count payments that were requested and settled at that time: each in `settled_in` ms, each of the same amount."""
    for width in (MINUTE, HOUR):
        for status, count in ((SUCCEEDED, succeeded), (FAILED, failed)):
            if count:
                _add(
                    AttemptRollup,
                    {
                        **_span(processor, at, width),
                        "status": status.value,
                        "bucket": bucket_of(settled_in),
                    },
                    attempts=count,
                    answers=count,
                    latency_ms=count * latency,
                )
    if succeeded:
        for width in (1, HOUR):
            key = {**_span(processor, at, width), "currency": currency}
            _add(Rollup, key, payments=succeeded, amount=succeeded * amount, fee=0)


def _span(processor: Processor, at: datetime, width: int) -> dict:
    starts_at = at - timedelta(seconds=at.timestamp() % width)
    return {"tenant_id": processor.tenant_id, "width": width, "starts_at": starts_at, "processor_id": processor.pk}


def _add(model: type, key: dict, **counts: int) -> None:
    found, new = model.objects.get_or_create(**key, defaults=counts)
    if not new:
        model.objects.filter(**key).update(**{name: getattr(found, name) + n for name, n in counts.items()})
