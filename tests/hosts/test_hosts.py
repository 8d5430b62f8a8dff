"""Several hosts by role, as real processes: each an `up` of its own on one PostgreSQL and one Valkey."""

import asyncio
import time

from registry.data.chores import CHORES
from tests.hosts.estate import Estate, estate
from tests.waiting import SCALE, eventually


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


async def test_one_host_holds_the_cron_and_another_takes_it_over_within_five_seconds_of_a_kill():
    async with estate() as site:
        hosts = [site.host(name, "--role", "housekeeping").up() for name in ("keeper-1", "keeper-2")]
        await asyncio.gather(*(host.ready() for host in hosts))
        held = await eventually(lambda: site.sql(HOLDER))
        holder, other = sorted(hosts, key=lambda host: not held[0][0].startswith(f"{host.name} "))
        ran = await eventually(lambda: (runs := runs_of(site)) and all(one[2] for one in runs) and runs)

        killed = time.monotonic()
        holder.kill()
        await eventually(lambda: any(name.startswith(f"{other.name} ") for [name] in site.sql(HOLDER)))

        assert time.monotonic() - killed < 5 * SCALE
        assert {name for name, *_ in ran} == set(CHORES)  # of a new service all were due at once


HOLDER = "SELECT holder FROM registry_lease WHERE name = 'cron' AND until > clock_timestamp()"


def runs_of(site: Estate) -> list[tuple]:
    found = site.sql("SELECT name, started_at, finished_at FROM queueing_chorerun")
    return found if len(found) == len(CHORES) else []
