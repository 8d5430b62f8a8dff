"""The whole service behind PgBouncer in transaction mode: `up`, its web process and its workers."""

import asyncio
import shutil

import pytest

from registry.data import pooling
from registry.servers import embedded
from tests.bed import template
from tests.bed.pgbouncer import is_installed, pgbouncer
from tests.chaos.sender import Sender
from tests.chaos.service import RETURN, Service
from tests.chaos.verdict import faults
from tests.waiting import eventually

SENT = 200  # payments


@pytest.mark.skipif(not is_installed(), reason="Debian's package pgbouncer is not installed")
async def test_the_whole_service_works_behind_pgbouncer_and_its_workers_listen_past_it():
    data = template.empty_folder("registry-pooled-")
    await asyncio.to_thread(template.fill, data)
    server = embedded.Postgres(data)
    await asyncio.to_thread(server.start)
    try:
        with pgbouncer(server.url, servers=20, clients=500) as pooler:
            direct = pooler.direct_url
            service = Service(data, DATABASE_URL=pooler.url, DATABASE_DIRECT_URL=direct)
            try:
                await service.start()
                sender = Sender(service.url, service.key)
                async with sender.sending():
                    await eventually(lambda: len(sender.accepted) >= SENT, within=RETURN)
                wrong = await faults(service, sender)
                listening = service.postgres_says("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN %'")
                said = (data / "up.log").read_text()
            finally:
                await asyncio.to_thread(service.close)
    finally:
        await asyncio.to_thread(server.stop)
        shutil.rmtree(data)

    assert wrong == []
    assert listening > 0
    assert not [warning for warning in (pooling.UNDECLARED, pooling.UNLIMITED, pooling.NO_LISTEN) if warning in said]
