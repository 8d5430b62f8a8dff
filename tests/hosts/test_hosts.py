"""Several hosts by role, as real processes: each an `up` of its own on one PostgreSQL and one Valkey."""

import asyncio
import json
import time

from registry.data.chores import CHORES
from tests.hosts.estate import Estate, Host, estate
from tests.waiting import SCALE, eventually

HOLDER = "SELECT holder FROM registry_lease WHERE name = %s AND until > clock_timestamp()"
TAKEN_OVER = 5.0 * SCALE  # seconds


async def test_a_payment_passes_a_web_host_and_a_worker_host():
    async with estate() as site:
        web, worker = site.host("web-1", "--role", "web").up(), site.host("worker-1", "--role", "worker").up()
        await asyncio.gather(web.ready(), worker.ready())

        payment = await site.settled(web, await site.pay(web))

        assert payment["status"] == "succeeded"
        assert web.parts("worker") == [] and worker.parts("registry.asgi:application") == []
        assert site.sql("SELECT DISTINCT hostname FROM queueing_worker WHERE queue = 'payments'") == [("worker-1",)]
        await _each_host_says_what_it_is_and_raises_no_false_alarm(site, web, worker)
        await _a_second_host_of_the_same_name_or_with_another_key_does_not_start(site)
        await _a_web_host_is_ready_while_no_worker_is_alive(site, web, worker)


async def _each_host_says_what_it_is_and_raises_no_false_alarm(site: Estate, web: Host, worker: Host) -> None:
    assert [(said := host.get("/health/ready"))["host"] + said["role"] for host in (web, worker)] == [
        "web-1web",
        "worker-1worker",
    ]
    assert (await asyncio.to_thread(worker.ask, "/payments", key=site.key))[0] == 404
    texts = [(await asyncio.to_thread(host.ask, "/metrics"))[1] for host in (web, worker)]
    assert 'registry_host_info{host="web-1",role="web"' in texts[0]
    assert 'registry_host_process_running{host="worker-1",process="worker-1"} 1.0' in texts[1]
    assert 'registry_payments_settled_total{outcome="succeeded"} 1.0' in texts[1]  # counted by its workers

    evaluated = "SELECT host FROM registry_alertwatch ORDER BY 1"
    await eventually(lambda: site.sql(evaluated) == [("",), ("web-1",), ("worker-1",)])
    assert site.sql("SELECT rule, host FROM registry_alert WHERE status = 'firing'") == []
    found = site.sql("SELECT name, role, heartbeat_at > now() - interval '5 s' FROM registry_host ORDER BY 1")
    assert found == [("web-1", "web", True), ("worker-1", "worker", True)]
    lines = [json.loads(line.partition("] ")[2]) for line in worker.log.splitlines() if line.startswith("[worker-1] {")]
    assert {(line["host"], line["process"]) for line in lines} == {("worker-1", "worker-1")}


async def _a_second_host_of_the_same_name_or_with_another_key_does_not_start(site: Estate) -> None:
    site.host("web-1 again", "--role", "web", REGISTRY_HOST="web-1").up()
    site.host("stranger", "--role", "web", SECRET_KEY="another-key-" + "x" * 40).up()
    said = [await asyncio.to_thread(host.ended) for host in site.hosts[-2:]]

    assert "a host named web-1 runs already" in said[0]
    assert "SECRET_KEY is not the one of host" in said[1]


async def _a_web_host_is_ready_while_no_worker_is_alive(site: Estate, web: Host, worker: Host) -> None:
    assert await worker.stop() == 0

    await eventually(lambda: web.ask("/health")[0] == 503)
    assert web.ask("/health/ready")[0] == 200
    assert site.sql("SELECT name FROM registry_host") == [("web-1",)]  # a host that was stopped is not missed


async def test_what_one_host_does_for_all_is_taken_over_within_five_seconds_of_a_kill():
    async with estate() as site:
        hosts = [site.host(name, "--role", "housekeeping").up() for name in ("keeper-1", "keeper-2")]
        await asyncio.gather(*(host.ready() for host in hosts))
        ran = await eventually(lambda: (runs := runs_of(site)) and all(one[2] for one in runs) and runs)
        assert {name for name, *_ in ran} == set(CHORES)  # of a new service all are due at once

        [[of_cron]] = site.sql(HOLDER, "cron")
        holder, other = sorted(hosts, key=lambda host: not of_cron.startswith(f"{host.name} "))
        killed = time.monotonic()
        holder.kill()
        for work in ("cron", "alerts"):
            await eventually(
                lambda work=work: any(name.startswith(f"{other.name} ") for [name] in site.sql(HOLDER, work))
            )
            assert time.monotonic() - killed < TAKEN_OVER

        silent = "registry_hosts_silent 1.0"
        await eventually(lambda: silent in other.ask("/metrics")[1])
        holder.up()
        await eventually(lambda: silent not in other.ask("/metrics")[1])


def runs_of(site: Estate) -> list[tuple]:
    found = site.sql("SELECT name, started_at, finished_at FROM queueing_chorerun")
    return found if len(found) == len(CHORES) else []


async def test_hosts_that_start_at_once_on_an_empty_database_migrate_it_once():
    async with estate() as site:
        site.sql("DROP SCHEMA public CASCADE")
        site.sql("CREATE SCHEMA public")
        hosts = [site.host(f"host-{number}", "--role", "web").up() for number in (1, 2, 3)]
        await asyncio.gather(*(host.ready() for host in hosts))

        applied = site.sql("SELECT app, name FROM django_migrations")

        assert len(applied) == len(set(applied)) > 20
        # A host that starts late on a busy machine need not wait.
        assert any("waiting for the migrations of another host" in host.log for host in hosts)
