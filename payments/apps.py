"""The app of payments."""

from django.apps import AppConfig


class PaymentsConfig(AppConfig):
    name = "payments"
    verbose_name = "Payments"

    def ready(self) -> None:
        from payments import tasks  # noqa: F401 - registers the drain, the chores and the work table
