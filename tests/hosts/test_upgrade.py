"""A rolling upgrade: the new release's migrations are applied while hosts of the old one work, then one host after the other changes."""

import asyncio
import time
from collections import Counter
from urllib.error import URLError

import pytest

from tests.depth import DEEP
from tests.hosts.estate import LIMIT, Estate, Host, estate
from tests.waiting import eventually

# What migrations of a later release may do to every table, each in a transaction of its own as migrations are.
ADDITIVE = """
ALTER TABLE {0}
    ADD COLUMN later_empty jsonb,
    ADD COLUMN later_default bigint NOT NULL DEFAULT 7,
    ADD COLUMN later_time timestamptz NOT NULL DEFAULT now()
"""
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
STATES = "SELECT status, count(*) FROM payments_payment GROUP BY 1"


class Sender:
    """Sends payments as a shop behind a balancer: what one host does not take goes to the other."""

    def __init__(self, site: Estate, hosts: list[Host]) -> None:
        self.site, self.hosts = site, hosts
        self.accepted: list[str] = []
        self.refused: list[str] = []

    async def send(self) -> None:
        while True:
            number = len(self.accepted)
            for host in (self.hosts[number % 2], self.hosts[1 - number % 2]):
                try:
                    self.accepted.append(await self.site.pay(host))
                    break
                except (URLError, ConnectionError, TimeoutError) as error:  # it is being replaced
                    last = repr(error)
            else:
                self.refused.append(last)
            await asyncio.sleep(0.05)

    async def some_more(self) -> None:
        wanted = len(self.accepted) + 10
        await eventually(lambda: len(self.accepted) >= wanted, within=LIMIT)


def migrate_by_adding(site: Estate) -> None:
    for (table,) in site.sql(TABLES):
        site.sql(ADDITIVE.format(table))
        site.sql(f"CREATE INDEX CONCURRENTLY ON {table} (later_default)")
    site.sql("CREATE TABLE registry_later (id bigserial PRIMARY KEY, name text NOT NULL)")


@pytest.mark.skipif(not DEEP, reason="two minutes: part of the deep run")
async def test_hosts_are_upgraded_one_after_the_other_and_every_payment_is_accepted_and_booked_once():
    async with estate() as site:
        first, second = (site.host(name, REGISTRY_VERSION="1") for name in ("first", "second"))
        await asyncio.gather(first.up().ready(), second.up().ready())
        await site.command("processor", "add", "shop", "played", "--kind", "sandbox", "--fee", "0.5", "--json")
        sender = Sender(site, [first, second])
        sending = asyncio.create_task(sender.send())

        await sender.some_more()
        await asyncio.to_thread(migrate_by_adding, site)
        await sender.some_more()
        await _the_old_release_works_on_the_new_schema(site, first)
        for host in (first, second):
            assert await host.stop() == 0
            host.environ["REGISTRY_VERSION"] = "2"
            await host.up().ready_again()
            await sender.some_more()
            versions = {version for [version] in site.sql("SELECT version FROM registry_host")}
            assert versions == ({"1", "2"} if host is first else {"2"})
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)

        assert sender.refused == []
        await eventually(lambda: {status for status, _ in site.sql(STATES)} == {"succeeded"}, within=LIMIT)
        booked = Counter([*site.default.booked, *site.fallback.booked])
        assert set(sender.accepted) <= set(booked) and max(booked.values()) == 1
        assert (await site.command("check_books", "--json"))["sound"]


async def _the_old_release_works_on_the_new_schema(site: Estate, host: Host) -> None:
    """Each kind of work: what it claims, settles and tells was prepared before the columns were added."""
    payment = await site.pay(host, processor="played")
    await site.settled(host, payment)
    await host.asks(f"/payments/{payment}/refunds", body={"amount": "1.00"})
    job = await host.asks("/jobs", body={"kind": "http", "input": {"url": f"{site.default.url}/payments-summary"}})
    await eventually(lambda: host.get(f"/payments/{payment}", key=site.key)["refunded"] == "1.00", within=LIMIT)
    await eventually(lambda: host.get(f"/jobs/{job['id']}", key=site.key)["finishedAt"], within=LIMIT)
    began = time.time()
    site.sql("UPDATE queueing_chorerun SET started_at = 'epoch'")  # all periodic tasks are due
    ran = "SELECT count(*) FILTER (WHERE succeeded_at > to_timestamp(%s)) = count(*), string_agg(error, ' ') FROM queueing_chorerun"
    await eventually(lambda: site.sql(ran, began)[0][0], within=2 * LIMIT)
    log_of_all = "".join(one.log for one in site.hosts)
    assert "Traceback" not in log_of_all
