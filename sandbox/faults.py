"""Trouble on command: before a request is executed, or after it and before its answer."""

import fnmatch
import random
from enum import StrEnum

import msgspec


class Trouble(StrEnum):
    DROP_BEFORE = "drop_before"  # the connection ends, nothing was executed
    DROP_AFTER = "drop_after"  # executed, then the connection ends
    ERROR_BEFORE = "error_before"  # 500, nothing was executed
    ERROR_AFTER = "error_after"  # executed, then 500, which is also what the key says from then on
    ERROR_KEPT = "error_kept"  # 500, nothing was executed, and the key says so from then on
    RATE_LIMIT = "rate_limit"  # 429, nothing was executed
    REFUSE = "refuse"  # `status` (400, 401, 403…), nothing was executed
    SLOW_BEFORE = "slow_before"  # executed after `seconds`
    SLOW_AFTER = "slow_after"  # executed at once, answered after `seconds`


class Fault(msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What goes wrong, where, and how often. Fields say it all, so that a test and the control API say the same."""

    trouble: Trouble
    on: str = "*"  # a pattern of "METHOD /path"
    times: int | None = None  # None: until it is taken away
    rate: float = 1.0  # share of the requests that it meets
    seconds: float = 0.0
    status: int = 400

    def meets(self, request: str) -> bool:
        return fnmatch.fnmatchcase(request, self.on) and self.times != 0 and random.random() < self.rate


class Faults:
    """The faults in force; the first that meets a request is the one it gets."""

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
