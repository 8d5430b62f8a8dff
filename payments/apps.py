"""The app of payments."""

from importlib import import_module

from django.apps import AppConfig

# Modules that register something by name when they are imported: drains, chores, handlers of events, go-live checks, gauges,
# columns to export and erase.
CAPABILITIES = (
    "billing.advance",
    "billing.readiness",
    "books.export",
    "books.ledger",
    "books.webhooks",
    "inbound.operate",
    "inbound.payments",
    "inbound.poll",
    "inbound.refunds",
    "inbound.work",
    "intake.spilling",
    "reconciliation.comparison",
    "reconciliation.janitor",
    "refunds.work",
    "settle.health",
    "settle.work",
)


class PaymentsConfig(AppConfig):
    name = "payments"
    verbose_name = "Payments"

    def ready(self) -> None:
        for name in CAPABILITIES:
            import_module(f"payments.{name}")
