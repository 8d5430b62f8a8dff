"""Errors of the message queue's API."""

from registry.errors import Malformed, NotFound


class UnknownQueue(NotFound):
    """Queue not found."""


class UnknownMessage(NotFound):
    """Message not found."""


class UnknownGroup(NotFound):
    """Consumer group not found."""


class UnknownDeadLetter(NotFound):
    """Dead letter not found."""


class BadRequest(Malformed):
    """The request cannot be understood."""
