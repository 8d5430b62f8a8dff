"""Errors of callers of payments, with their HTTP status."""

from registry.errors import NotFound, Problem


class PaymentError(Problem):
    """The payment cannot be handled that way."""

    status = 422


class UnknownPayment(NotFound):
    """There is no payment with this id."""


class DifferentContent(PaymentError):
    """A payment with this correlation id exists with other content."""

    status = 409


class NotCancelable(PaymentError):
    """Only a payment that is queued or requires action can be canceled."""

    status = 409


class NotCapturable(PaymentError):
    """Only a payment that is authorized and waits to be captured can be captured."""

    status = 409


class NotRefundable(PaymentError):
    """Only a payment that succeeded, at a processor that supports refunds, can be refunded."""

    status = 409


class RefundTooLarge(PaymentError):
    """The refund is larger than what is left of the payment."""

    status = 409


class UnknownRefund(NotFound):
    """There is no refund with this id."""


class LiveTenant(PaymentError):
    """Payments of a live tenant cannot be purged."""

    status = 403


class AmountRefused(PaymentError):
    """The amount cannot be represented in its currency."""


class PaymentsBlocked(PaymentError):
    """This tenant's live payments are refused for the time being."""

    status = 403
