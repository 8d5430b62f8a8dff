"""Faults on demand: error responses and broken connections in place of the test double's answers."""

from typing import Any

import httpx2
import msgspec

from registry_client.testing.wire import Refused

KINDS = {429: "too-many-requests", 500: "problem", 503: "unavailable"}


class Fault(msgspec.Struct):
    """What happens to the next `left` requests."""

    left: int
    status: int = 0
    retry_after: int | None = None
    executed: bool = False


class Faults:
    """The faults that a test asked for, in the order in which they strike."""

    def __init__(self) -> None:
        self._planned: list[Fault] = []

    def plan(self, times: int, **fields: Any) -> None:
        self._planned.append(Fault(left=times, **fields))

    def next(self) -> Fault | None:
        """The fault that strikes the request that arrives now."""
        if not self._planned:
            return None
        fault = self._planned[0]
        fault.left -= 1
        if not fault.left:
            self._planned.pop(0)
        return fault


def raise_status(fault: Fault) -> None:
    """Raises Refused for a fault that is an error response."""
    if fault.status:
        wait = {} if fault.retry_after is None else {"Retry_After": str(fault.retry_after)}
        raise Refused(fault.status, KINDS.get(fault.status, "fault"), "a fault of the test", None, **wait)


def broken(request: httpx2.Request) -> httpx2.ReadError:
    return httpx2.ReadError("the test broke the connection", request=request)
