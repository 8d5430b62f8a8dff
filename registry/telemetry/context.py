"""Context of the current work; every log line carries it."""

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.telemetry.traces import Span

REQUEST: ContextVar[str] = ContextVar("request_id", default="")
TENANT: ContextVar[str | int] = ContextVar("tenant", default="")  # slug, or id where the slug is unknown
PAYMENT: ContextVar[str] = ContextVar("payment", default="")  # correlation id
CALLER: ContextVar[tuple[int, str] | None] = ContextVar("caller", default=None)  # tenant id and prefix of the API key
# Spans that are under way: of a request one for each sampled object that it makes, else at most one. Empty: nothing is sampled.
TRACED: ContextVar[tuple["Span", ...]] = ContextVar("traced", default=())
