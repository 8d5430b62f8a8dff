"""Errors of sign-up, invitations and billing."""

from payments.errors import PaymentError


class BillingOff(PaymentError):
    """This service takes no subscriptions by card. Choose a plan without a price, or ask those who run the service."""

    status = 409


class AlreadySubscribed(PaymentError):
    """There is a paid plan already; it may have been paid for in another tab."""

    status = 409


class BillingAway(PaymentError):
    """Stripe did not answer as expected; try again in a moment."""

    status = 503


class NotReady(PaymentError):
    """Something is missing before live payments can be taken."""

    status = 409


class InvitationInvalid(PaymentError):
    """This link is invalid, has been used, or has expired."""

    status = 404


class StepRefused(PaymentError):
    """Some fields are not acceptable."""
