"""The names of all samples that /metrics can show, with their labels."""

from django.utils import timezone
from prometheus_client import REGISTRY

from payments.models import LedgerProof
from registry.edge import status
from registry.models import BookCheck

ENDINGS = {"counter": ("_total",), "histogram": ("_count", "_sum", "_bucket"), "summary": ("_count", "_sum")}


async def metric_names() -> set[str]:
    """Also of gauges that have no sample before a check has run."""
    await BookCheck.async_objects.acreate(finished_at=timezone.now())
    await LedgerProof.async_objects.acreate(at=timezone.now(), whole=True, last_line=0, sound=True, found={})
    families = [family for gauge in status.gauges for family in await gauge()] + list(REGISTRY.collect())
    return {f"{one.name}{ending}" for one in families for ending in ENDINGS.get(one.type, ("",))}
