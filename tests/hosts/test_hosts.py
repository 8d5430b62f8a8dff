"""Several hosts by role, as real processes: each an `up` of its own on one PostgreSQL and one Valkey."""

import asyncio

from tests.hosts.estate import estate


async def test_a_payment_passes_a_web_host_and_a_worker_host():
    async with estate() as site:
        web, worker = site.host("web-1", "--role", "web").up(), site.host("worker-1", "--role", "worker").up()
        await asyncio.gather(web.ready(), worker.ready())

        payment = await site.settled(web, await site.pay(web))

        assert payment["status"] == "succeeded"
        assert web.parts("worker") == [] and worker.parts("registry.asgi:application") == []
        assert site.sql("SELECT DISTINCT hostname FROM queueing_worker WHERE queue = 'payments'") == [("worker-1",)]
        assert [web.get("/health/ready")["role"], worker.get("/health/ready")["role"]] == ["web", "worker"]
        assert (await asyncio.to_thread(worker.ask, "/payments", key=site.key))[0] == 404
