"""The app of payments."""

from django.apps import AppConfig


class PaymentsConfig(AppConfig):
    name = "payments"
    verbose_name = "Payments"

    def ready(self) -> None:
        from payments import chores, health, intake, takeout, tasks  # noqa: F401 - register gauges, the spill's kind, drain, chores, work table
        from payments.billing import chores as billing_chores  # noqa: F401
        from payments.billing import readiness  # noqa: F401 - the gate
