"""Helpers of tests of traces: tracing turned on in this process, towards a receiver of the bed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from django.conf import settings

from registry.telemetry import export, metrics, traces
from registry.tenants import sampling
from tests.bed.traces import TraceReceiver


@asynccontextmanager
async def tracing(endpoint: str, *, rate: float = 1.0) -> AsyncIterator[None]:
    """Tracing is on for the block, as the settings turn it on when a process starts. What waits is sent at its end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(traces, "on", True)
        patch.setattr(export, "EVERY", 0.05)
        patch.setattr(settings, "OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        patch.setattr(settings, "TRACE_SAMPLE_RATE", rate)
        try:
            await sampling.start()
            yield
        finally:
            await sampling.loops.close()
            sampling._Rates.of = None


@asynccontextmanager
async def received(*, rate: float = 1.0) -> AsyncIterator[TraceReceiver]:
    """`tracing` towards a receiver of its own."""
    async with TraceReceiver() as receiver, tracing(receiver.url, rate=rate):
        yield receiver


def counted(outcome: str) -> float:
    """Spans with this outcome, as the metrics of this process count them."""
    return metrics.TRACE_SPANS.labels(outcome)._value.get()
