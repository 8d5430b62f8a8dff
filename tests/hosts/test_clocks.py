"""The service's clock, and hosts whose own clocks are wrong by a minute."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from registry.data import clock, clock_watch
from tests.depth import DEEP
from tests.hosts.estate import Estate, Host, estate

WRONG = 60  # seconds


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("offset", "at", "within"):
        monkeypatch.setattr(clock._Known, name, vars(clock._Known)[name])


# -- One process ------------------------------------------------------------------------------------------------------


async def test_a_clock_that_agrees_with_the_servers_is_used_as_it_is():
    await clock_watch.ask()

    assert clock._Known.offset is None
    assert abs(clock.timestamp() - time.time()) < 0.001


@pytest.mark.parametrize("wrong", [-WRONG, WRONG])
def test_a_clock_that_is_wrong_is_replaced_by_the_servers(wrong: int):
    clock._Known.at = None
    theirs = time.time() + wrong

    clock.learn(theirs, asked=time.monotonic())

    assert 0 <= clock.timestamp() - theirs < 1
    assert abs(clock.now() - datetime.now(UTC) - timedelta(seconds=wrong)) < timedelta(seconds=1)


def test_an_answer_that_took_long_replaces_only_an_old_one():
    asked = time.monotonic()
    clock._Known.at = None
    clock.learn(time.time() + WRONG, asked=asked)

    clock.learn(time.time() + 2 * WRONG, asked=asked - 5)
    assert round(clock.timestamp() - time.time()) == WRONG

    clock._Known.at = asked - clock.STALE - 1
    clock.learn(time.time() + 2 * WRONG, asked=asked - 5)
    assert round(clock.timestamp() - time.time()) == 2 * WRONG


def test_a_server_that_answers_late_is_not_taken_for_one_with_another_clock():
    clock._Known.at = None

    clock.learn(time.time() - 3, asked=time.monotonic() - 4)  # it was that time somewhere within the four seconds

    assert clock._Known.offset is None


# -- Hosts -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not DEEP, reason="a minute: part of the deep run")
async def test_hosts_whose_clocks_are_two_minutes_apart_do_what_one_host_would():
    async with estate() as site:
        ahead = site.host("ahead", clock=WRONG).up()
        behind = site.host("behind", clock=-WRONG).up()
        await asyncio.gather(ahead.ready(), behind.ready())

        for host in (ahead, behind):
            await _payments_settle_at_once_and_are_stamped_by_the_server(site, host)
        await _a_scheduled_payment_waits_until_its_time(site, ahead, behind)
        await _a_rate_limit_counts_on_both(site, ahead, behind)
        offsets = dict(site.sql("SELECT name, round(clock_offset) FROM registry_host"))
        assert offsets == {"ahead": WRONG, "behind": -WRONG}
        assert site.sql("SELECT count(*) FROM queueing_worker WHERE queue = 'payments'") == [(2,)]


async def _payments_settle_at_once_and_are_stamped_by_the_server(site: Estate, host: Host) -> None:
    began = time.monotonic()
    ids = [await site.pay(host) for _ in range(10)]
    found = [await site.settled(host, one) for one in ids]

    assert {one["status"] for one in found} == {"succeeded"}
    took = time.monotonic() - began
    stamps = site.sql(
        "SELECT extract(epoch FROM now() - created_at), extract(epoch FROM now() - requested_at) FROM payments_payment"
        " WHERE correlation_id = ANY(%s::uuid[])",
        ids,
    )
    assert len(stamps) == len(ids)
    assert all(-1 < age < took + 1 for ages in stamps for age in ages)


async def _a_scheduled_payment_waits_until_its_time(site: Estate, ahead: Host, behind: Host) -> None:
    at = datetime.now(UTC) + timedelta(seconds=5)
    ids = [await site.pay(host, scheduledFor=at.isoformat()) for host in (ahead, behind)]
    for one in ids:
        assert (await site.settled(behind, one))["status"] == "succeeded"

    [[first]] = site.sql("SELECT min(requested_at) FROM payments_payment WHERE correlation_id = ANY(%s::uuid[])", ids)
    assert timedelta(seconds=-0.2) < first - at < timedelta(seconds=20)


async def _a_rate_limit_counts_on_both(site: Estate, ahead: Host, behind: Host) -> None:
    key = await site.command("apikey", "create", "shop", "--rate-limit", "4/minute", "--json")
    asked = [host.ask("/payments?limit=1", key=key["apiKey"])[0] for host in (ahead, behind) * 3]

    assert sorted(asked) == [200, 200, 200, 200, 429, 429]
