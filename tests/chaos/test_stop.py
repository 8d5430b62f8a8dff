"""The service is stopped after all other chaos tests."""

import asyncio
import time

from tests.bed.running import EXIT_LIMIT, processes_naming
from tests.chaos.service import Service


async def test_a_stopped_service_exits_within_ten_seconds_and_leaves_no_process(service: Service):
    started = time.monotonic()
    service.popen.terminate()
    status = await asyncio.to_thread(service.popen.wait, 6 * EXIT_LIMIT)

    assert (status, time.monotonic() - started < EXIT_LIMIT) == (0, True)
    assert processes_naming(service.data) == []
