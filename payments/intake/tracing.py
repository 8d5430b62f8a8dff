"""Spans of accepting payments: the request's, and that of the commit that it shares with others. Only of sampled payments."""

from collections.abc import Iterable, Sequence

from payments.intake.payment import NewPayment, Receipt, Submission
from registry.telemetry import context, traces
from registry.tenants.sampling import sampled


@traces.harmless
def enter(accepted: Iterable[tuple[NewPayment, Receipt]]) -> None:
    """Put the sampled payments of a request into its context. Its span is the first one in the trace of each payment that is new."""
    spans = []
    for payment, receipt in accepted:
        if first := sampled("payment", payment.tenant_id, payment.correlation_id):
            spans.append(first.child() if receipt.replayed else first)
    if spans:
        context.TRACED.set(tuple(spans))


@traces.harmless
def record_commit(batch: Sequence[Submission], results: Sequence[object], began: float) -> None:
    """Record the commit in the traces of the payments that it stored. `began`: time.perf_counter()."""
    keys = [one.key for one, result in zip(batch, results, strict=True) if isinstance(result, Receipt)]
    firsts = [span for tenant, id in keys if (span := sampled("payment", tenant, id))]
    attributes: dict[str, str | int] = {
        "db.system.name": "postgresql",
        "db.query.summary": "accept payments",
        "db.operation.batch.size": len(batch),
    }
    traces.record_shared("accept payments", firsts, began=began, attributes=attributes)
