"""Waiting for a condition, with a limit: a test never sleeps a guessed time."""

import asyncio
import os
from collections.abc import Callable
from typing import Any

SCALE = float(os.environ.get("TEST_SCALE", "1"))  # of limits, for a machine that does other things as well
PATIENCE = 30.0 * SCALE  # seconds that `eventually` waits before it fails
SOON, SELDOM = 0.01, 0.05  # seconds between two looks


async def eventually(condition: Callable[[], Any], *, within: float = PATIENCE) -> Any:
    """The first true value of `condition` (plain or async). Fails after `within` seconds.

    It asks after 10 ms, and less often the longer it waits, down to 20 times a second: what it asks about wants the processor too.
    """
    pause = SOON
    async with asyncio.timeout(within):
        while True:
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(pause)
            pause = min(pause * 1.1, SELDOM)
