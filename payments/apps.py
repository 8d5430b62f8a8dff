"""The app of payments."""

from django.apps import AppConfig


class PaymentsConfig(AppConfig):
    name = "payments"
    verbose_name = "Payments"

    def ready(self) -> None:
        from payments.billing import chores as billing_chores  # noqa: F401
        from payments.billing import readiness  # noqa: F401 - the gate
        from payments.books import export  # noqa: F401 - what is exported and erased
        from payments.books import webhooks as _webhooks  # noqa: F401 - the source of webhook events
        from payments.intake import spilling  # noqa: F401 - the spill's kind
        from payments.reconciliation import chores  # noqa: F401
        from payments.settle import health, tasks  # noqa: F401 - gauges, drains, chores
