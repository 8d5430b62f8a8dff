"""Problems with their HTTP status (RFC 9457). Each app has one root class below Problem."""

import re
from typing import ClassVar


class Problem(Exception):
    """Something went wrong that the caller should know about."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = ""  # last part of the problem's `type`; empty: derived from the class's name

    def __init__(
        self, detail: str = "", *, errors: list[dict[str, str]] | None = None, headers: dict[str, str] | None = None
    ):
        self.detail = detail or (type(self).__doc__ or "").strip()
        self.errors = errors or []
        self.headers = headers or {}
        super().__init__(self.detail)

    @property
    def type(self) -> str:
        """The URN, derived from the class's name."""
        return "urn:registry:problem:" + re.sub(r"(?<!^)(?=[A-Z])", "-", type(self).__name__).lower()

    @property
    def title(self) -> str:
        return (type(self).__doc__ or "").strip().rstrip(".")


class Malformed(Problem):
    """The body is not the JSON that is expected here."""

    status = 400


class InvalidRequest(Problem):
    """The request is not valid HTTP."""

    status = 400


class Unauthorized(Problem):
    """A valid API key is needed."""

    status = 401

    def __init__(self, detail: str = "", **more):
        super().__init__(detail, headers={"WWW-Authenticate": "Bearer"}, **more)


class Forbidden(Problem):
    """This key or person may not do that."""

    status = 403


class NotFound(Problem):
    """There is no such thing here."""

    status = 404


class MethodNotAllowed(Problem):
    """This address does not take that method."""

    status = 405


class BodyTimeout(Problem):
    """The body did not arrive in time."""

    status = 408


class TooLarge(Problem):
    """The body is larger than allowed."""

    status = 413


class UnsupportedMediaType(Problem):
    """The body must be application/json."""

    status = 415


class UnsupportedCoding(Problem):
    """The body is in a content coding that is not understood here."""

    status = 415


class Invalid(Problem):
    """Some fields are not acceptable."""

    status = 422


class TooManyRequests(Problem):
    """The key's rate limit is used up."""

    status = 429


class HeadTooLarge(Problem):
    """The head of the request is larger than allowed."""

    status = 431


class UnknownTransferCoding(Problem):
    """The request is in a transfer coding that is not understood here."""

    status = 501


class Unavailable(Problem):
    """A part that is needed is away for the moment; try again."""

    status = 503
    RETRY_AFTER = "1"

    def __init__(self, detail: str = "", **more):
        super().__init__(detail, headers={"Retry-After": self.RETRY_AFTER}, **more)
