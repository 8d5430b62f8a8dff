"""The app of payments."""

from importlib import import_module

from django.apps import AppConfig

# Modules that register something by name when they are imported: drains, chores, handlers of events, go-live checks, gauges,
# sources of attention, alert rules, columns to export and erase.
CAPABILITIES = (
    "billing.advance",
    "billing.attention",
    "billing.readiness",
    "books.alerts",
    "books.attention",
    "books.check.ledger",
    "books.check.payments",
    "books.check.returns",
    "books.check.rollups",
    "books.check.stream",
    "books.export",
    "books.figures",
    "books.ledger",
    "books.webhooks",
    "inbound.alerts",
    "inbound.attention",
    "inbound.operate",
    "inbound.payments",
    "inbound.poll",
    "inbound.refunds",
    "inbound.work",
    "intake.spilling",
    "reconciliation.alerts",
    "reconciliation.attention",
    "reconciliation.comparison",
    "reconciliation.janitor",
    "refunds.alerts",
    "refunds.attention",
    "refunds.work",
    "routing.alerts",
    "routing.attention",
    "routing.takers",
    "settle.alerts",
    "settle.attention",
    "settle.work",
)


class PaymentsConfig(AppConfig):
    name = "payments"
    verbose_name = "Payments"

    def ready(self) -> None:
        for name in CAPABILITIES:
            import_module(f"payments.{name}")
