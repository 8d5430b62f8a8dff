"""Two hosts that begin a service at once, one of which is killed: real processes, each an `up` of its own."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from registry.data.chores import CHORES
from registry.management import migrating
from tests.hosts.estate import Estate, Host, estate
from tests.waiting import SCALE, eventually

HOLDER = "SELECT holder FROM registry_lease WHERE name = %s AND until > clock_timestamp()"
TAKEN_OVER = 5.0 * SCALE  # seconds


async def test_hosts_that_start_at_once_migrate_once_and_one_takes_over_from_the_other_within_five_seconds_of_a_kill():
    async with estate() as site:
        hosts = [site.host(name, "--role", "housekeeping") for name in ("keeper-1", "keeper-2")]
        await _they_migrate_an_empty_database_once(site, hosts)
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


async def _they_migrate_an_empty_database_once(site: Estate, hosts: list[Host]) -> None:
    site.sql("DROP SCHEMA public CASCADE")
    site.sql("CREATE SCHEMA public")
    async with _migrated_by_a_third(site):
        for host in hosts:
            host.up()
        await asyncio.gather(*(host.says("waiting for the migrations of another host") for host in hosts))
    await asyncio.gather(*(host.ready() for host in hosts))

    applied = site.sql("SELECT app, name FROM django_migrations")
    assert len(applied) == len(set(applied)) > 20


@asynccontextmanager
async def _migrated_by_a_third(site: Estate) -> AsyncIterator[None]:
    """A host that has the lock while the block runs, and then loses its power: the others begin at the same moment."""
    async with await psycopg.AsyncConnection.connect(site.shared["DATABASE_URL"]) as connection:
        [[taken]] = await (await connection.execute(migrating.SQL["lock"])).fetchall()
        assert taken
        yield
        await connection.rollback()


def runs_of(site: Estate) -> list[tuple]:
    found = site.sql("SELECT name, started_at, finished_at FROM queueing_chorerun")
    return found if len(found) == len(CHORES) else []
