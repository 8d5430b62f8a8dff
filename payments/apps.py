"""The app of payments."""

from django.apps import AppConfig


class PaymentsConfig(AppConfig):
    name = "payments"
    verbose_name = "Payments"

    def ready(self) -> None:
        from payments import chores, health, intake, takeout, tasks  # noqa: F401 - register gauges, the spill's kind, drain, chores, work table
