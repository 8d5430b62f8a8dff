"""Fault injection: before a request is executed, or after it and before the response."""

import fnmatch
import random
from enum import StrEnum

import msgspec


class Trouble(StrEnum):
    DROP_BEFORE = "drop_before"  # connection closed, not executed
    DROP_AFTER = "drop_after"  # executed, then connection closed
    ERROR_BEFORE = "error_before"  # 500, not executed
    ERROR_AFTER = "error_after"  # executed, then a 500 that is stored under the idempotency key
    ERROR_KEPT = "error_kept"  # 500, not executed, but stored under the idempotency key
    RATE_LIMIT = "rate_limit"  # 429, not executed
    REFUSE = "refuse"  # `status` (400, 401, 403…), not executed
    SLOW_BEFORE = "slow_before"  # executed after `seconds`
    SLOW_AFTER = "slow_after"  # executed at once, response after `seconds`


class Fault(msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A fault: its kind, the requests it applies to, and how often. Tests and the control API use the same fields."""

    trouble: Trouble
    on: str = "*"  # a pattern of "METHOD /path"
    times: int | None = None  # None: until it is removed
    rate: float = 1.0  # share of matching requests
    seconds: float = 0.0
    status: int = 400

    def meets(self, request: str) -> bool:
        return fnmatch.fnmatchcase(request, self.on) and self.times != 0 and random.random() < self.rate


class Faults:
    """The active faults; the first one that matches a request applies."""

    def __init__(self) -> None:
        self.active: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        self.active.append(fault)
        return fault

    def clear(self) -> None:
        self.active.clear()

    def take(self, method: str, path: str) -> Fault | None:
        for fault in self.active:
            if fault.meets(f"{method} {path}"):
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None
