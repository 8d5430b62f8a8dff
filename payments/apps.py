"""The app of payments."""

from django.apps import AppConfig


class PaymentsConfig(AppConfig):
    name = "payments"
    verbose_name = "Payments"

    def ready(self) -> None:
        from payments import health, tasks  # noqa: F401 - registers the gauges, the drain, the chores, the work table
