"""Context of the current work; every log line carries it."""

from contextvars import ContextVar

REQUEST: ContextVar[str] = ContextVar("request_id", default="")
TENANT: ContextVar[str | int] = ContextVar("tenant", default="")  # slug, or id where the slug is unknown
PAYMENT: ContextVar[str] = ContextVar("payment", default="")  # correlation id
CALLER: ContextVar[tuple[int, str] | None] = ContextVar("caller", default=None)  # tenant id and prefix of the API key
