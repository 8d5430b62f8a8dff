"""Time limits of the service, shortened in the programs that tests start: Python imports this file first where its folder is
on PYTHONPATH. The limits keep their relation to one another. `make test-deep` keeps the product's.

A program whose clock is set (tests/bed/clocks.py) begins again under libfaketime."""

import os
import sys
from datetime import timedelta
from importlib.machinery import SourceFileLoader
from typing import Any

SILENT = timedelta(seconds=2)
LIMITS: dict[str, dict[str, Any]] = {
    "payments.settle.work": {"ABANDON_EVERY": 1.0},
    "queueing.models.workers": {"SILENT_AFTER": SILENT},
    "queueing.spill.file": {"TAKEOVER_EVERY": 1.0},
    "queueing.work.drain": {"HEARTBEAT": 0.4, "LATE": 0.8, "GRACE": 1.6, "SILENT_AFTER": SILENT},
    "queueing.work.without_redis": {"LOOK_EVERY": 0.2, "STEADY": 1.5, "PAUSE": 0.4, "END_LIMIT": 2.6},
    "queueing.work.worker": {"HORSE_TIMEOUT": 0.8, "GentleWorker.connection_timeout": 1.6},
    "registry.servers.child": {"LONGEST_PAUSE": 2.0, "STEADY_AFTER": 4.0},
}

_exec_module = SourceFileLoader.exec_module


def _with_limits(self: SourceFileLoader, module: Any) -> None:
    _exec_module(self, module)
    for name, value in LIMITS.get(module.__name__, {}).items():
        owner, _, attribute = name.rpartition(".")
        setattr(vars(module)[owner] if owner else module, attribute, value)


def _with_its_clock(folder: str) -> None:
    """Begin again, in the same process, where a file in the folder is named after a word of the command line."""
    for word in sys.orig_argv[1:]:
        path = os.path.join(folder, word)
        if "/" not in word and os.path.isfile(path):
            with open(path) as file:
                os.execve(sys.executable, sys.orig_argv, {**os.environ, **dict(line.split() for line in file)})


def _sleep_by_select() -> None:
    """Python's sleep waits until a moment of the monotonic clock, which libfaketime moves although it is told not to."""
    import select
    import time

    time.sleep = lambda seconds: select.select([], [], [], seconds)  # type: ignore[assignment, misc]


if "FAKETIME" in os.environ:
    _sleep_by_select()
if "BED_CLOCKS" in os.environ and "FAKETIME" not in os.environ:
    _with_its_clock(os.environ["BED_CLOCKS"])
if __name__ == "sitecustomize" and os.environ.get("DEEP") != "1":
    SourceFileLoader.exec_module = _with_limits  # type: ignore[method-assign]
