"""The `Prefer` header (RFC 7240): how long a sender waits for the outcome of its request."""

from collections.abc import Awaitable
from typing import NamedTuple

from django.http import HttpRequest, HttpResponse

from registry.data import faults
from registry.edge.handler import until_disconnect
from registry.edge.parameters import LONGEST_WAIT

ASYNC = "respond-async"


class Preference(NamedTuple):
    """What the sender prefers."""

    wait: float = 0.0  # seconds, at most LONGEST_WAIT; 0: it does not wait
    respond_async: bool = False


_NONE = Preference()


def preference_of(request: HttpRequest) -> Preference:
    header = request.META.get("HTTP_PREFER", "")
    return Preference(_wait(header), ASYNC in header.lower()) if header else _NONE


def _wait(header: str) -> float:
    for preference in header.split(","):
        name, _, value = preference.partition("=")
        if name.strip().lower() == "wait" and value.strip().isascii() and value.strip().isdigit():
            return min(float(value), float(LONGEST_WAIT))
    return 0.0


def applied(response: HttpResponse, wait: float = 0.0) -> HttpResponse:
    """Add the Preference-Applied header: `wait=N`, or `respond-async`."""
    response["Preference-Applied"] = f"wait={wait:.0f}" if wait else ASYNC
    return response


async def awaited[T](request: HttpRequest, outcome: Awaitable[T]) -> T | None:
    """The outcome; None if the client disconnects or the database is unavailable.

    The request is durable in any case, and a 503 would make its sender repeat it.
    """
    try:
        return await until_disconnect(request.receive, outcome)  # type: ignore[attr-defined]
    except Exception as error:
        if not faults.is_temporary(error):
            raise
        return None
