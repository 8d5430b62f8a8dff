"""All errors of the client, in one tree below `RegistryError`."""

from typing import Any

import msgspec


class FieldError(msgspec.Struct, frozen=True):
    """An invalid field of a request."""

    field: str
    message: str


class ProblemDetails(msgspec.Struct, frozen=True):
    """Problem details of an error response (RFC 9457)."""

    type: str = "about:blank"
    title: str = ""
    status: int = 0
    detail: str = ""
    errors: tuple[FieldError, ...] = ()


class RegistryError(Exception):
    """Root of the tree."""


class ConnectionFailed(RegistryError):
    """No response: no connection, or a connection that broke off. The request may have been executed."""


class RequestTimeout(ConnectionFailed):
    """No response in time. The request may have been executed."""


class NotConnected(ConnectionFailed):
    """No connection could be opened: the request was certainly not executed."""


class WaitTimeout(RegistryError, TimeoutError):
    """The object did not end in time; `last` is its latest state."""

    def __init__(self, message: str, last: Any) -> None:
        super().__init__(message)
        self.last = last


class UnexpectedResponse(RegistryError):
    """A successful response whose body is not what the API documents."""


class TransactionRefused(RegistryError):
    """The queue refused a transaction; nothing of it was executed."""


class JobNotSuccessful(RegistryError):
    """The job failed or was canceled, so that it has no result; `job` is its state."""

    def __init__(self, message: str, job: Any) -> None:
        super().__init__(message)
        self.job = job


class WebhookRefused(RegistryError):
    """The message has no valid signature, or is too old: do not act on it."""


class ResponseError(RegistryError):
    """The service answered with an error status."""

    def __init__(self, problem: ProblemDetails, request_id: str = "", retry_after: float | None = None) -> None:
        self.problem, self.request_id, self.retry_after = problem, request_id, retry_after
        super().__init__(self._text())

    @property
    def status(self) -> int:
        return self.problem.status

    @property
    def errors(self) -> tuple[FieldError, ...]:
        """The invalid fields, of a ValidationFailed."""
        return self.problem.errors

    def _text(self) -> str:
        what = self.problem.detail or self.problem.title or "error"
        if fields := "; ".join(f"{one.field}: {one.message}" for one in self.problem.errors):
            what = f"{what.removesuffix('.')}: {fields}"
        return f"{self.problem.status} {what} (request {self.request_id})"


class BadRequest(ResponseError):
    """400, or another 4xx without a class of its own: the request is malformed."""


class AuthenticationFailed(ResponseError):
    """401: no valid key."""


class PermissionDenied(ResponseError):
    """403: the key lacks the scope, or the tenant may not do that now."""


class NotFound(ResponseError):
    """404: there is no such object, or it belongs to another tenant."""


class Conflict(ResponseError):
    """409: other content under the same id, or a state that does not allow the request."""


class Gone(ResponseError):
    """410: it existed and has expired."""


class TooLarge(ResponseError):
    """413: the body exceeds the limit."""


class ValidationFailed(ResponseError):
    """422: `errors` names the invalid fields."""


class RateLimited(ResponseError):
    """429: the key's rate limit is used up for `retry_after` seconds."""


class ServerFailed(ResponseError):
    """500 or another 5xx: the service failed. The request may have been executed."""


class ServiceUnavailable(ServerFailed):
    """502, 503 or 504: temporarily unavailable; `retry_after` says for how many seconds, if known."""


BY_STATUS: dict[int, type[ResponseError]] = {
    401: AuthenticationFailed,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    410: Gone,
    413: TooLarge,
    422: ValidationFailed,
    429: RateLimited,
    502: ServiceUnavailable,
    503: ServiceUnavailable,
    504: ServiceUnavailable,
}


def class_of(status: int) -> type[ResponseError]:
    return BY_STATUS.get(status) or (ServerFailed if status >= 500 else BadRequest)
