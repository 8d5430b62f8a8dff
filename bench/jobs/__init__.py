"""Background jobs: their rate against PgQueuer's (rates.py), their latency (latency.py), and the cost of a history (history.py)."""

from bench.figures import Effort, Figure
from bench.jobs import history, latency, rates


def run(effort: Effort) -> list[Figure]:
    return [*rates.run(effort), *latency.run(effort), *history.run(effort)]
