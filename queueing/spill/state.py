"""State of the spill of one kind in this process, and its metrics."""

from datetime import datetime

import msgspec

from registry.data import clock
from registry.telemetry import metrics


class SpillState(msgspec.Struct, frozen=True):
    """What one SpillQueue holds and how it works."""

    kind: str
    engine: str
    records: int
    bytes: int
    oldest: datetime | None
    quarantined: int  # by all processes
    draining: bool  # the last batch was stored
    refused: str  # why the last append was refused; empty where it was not

    @property
    def oldest_seconds(self) -> float:
        return max(0.0, (clock.now() - self.oldest).total_seconds()) if self.oldest else 0.0

    def publish(self) -> None:
        """Set the process's gauges."""
        metrics.SPILL_RECORDS.labels(self.kind).set(self.records)
        metrics.SPILL_BYTES.labels(self.kind).set(self.bytes)
        metrics.SPILL_OLDEST.labels(self.kind).set(self.oldest_seconds)
        metrics.SPILL_REFUSES.labels(self.kind).set(bool(self.refused))
