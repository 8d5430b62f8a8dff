"""Errors of the outbound webhooks API."""

from registry.errors import NotFound, Problem


class UnknownWebhookEndpoint(NotFound):
    """There is no webhook endpoint with this id."""


class UnknownDelivery(NotFound):
    """There is no delivery with this id."""


class TooManyEndpoints(Problem):
    """The tenant has as many webhook endpoints as it may have."""

    status = 409


class NotReplayable(Problem):
    """This delivery is still to be made, or its endpoint is switched off."""

    status = 409
