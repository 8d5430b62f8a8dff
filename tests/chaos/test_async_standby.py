"""An asynchronous standby that takes over: what it had not received is lost, and sent again by those whom it concerns."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.chaos.paired import PairedService, TimedSender, fail_over, paired
from tests.chaos.verdict import faults
from tests.depth import DEEP

BEHIND = 50  # payments that the standby lacks when it takes over


@pytest.fixture
async def service() -> AsyncIterator[PairedService]:
    async with paired(synchronous=False) as running:
        yield running


@pytest.mark.skipif(not DEEP, reason="half a minute: part of the deep run")
async def test_an_asynchronous_standby_lacks_what_it_had_not_received_and_senders_repeat_it_without_a_second_booking(
    service: PairedService,
):
    """How much is lost is what the standby was behind; here it is cut off before, so that there is something to see."""
    at_risk: set[str] = set()

    async def killed_while_the_standby_lags(sender: TimedSender) -> None:
        await asyncio.to_thread(service.pair.hold_back)
        at_risk_from = set(sender.accepted)
        await sender.more(BEHIND)
        await asyncio.to_thread(service.pair.kill)
        at_risk.update(set(sender.accepted) - at_risk_from)
        await asyncio.to_thread(service.pair.promote)

    sender, _ = await fail_over(service, killed_while_the_standby_lags)
    lost = set(sender.accepted) - await asyncio.to_thread(stored, service)
    print(f"\nasynchronous, {len(at_risk)} accepted after the standby was cut off: {len(lost)} lost")
    headers = {"Authorization": f"Bearer {service.key}"}
    async with aiohttp.ClientSession(service.url, headers=headers) as session:
        for name in lost:
            cents = sender.accepted[name]
            body = {"correlationId": name, "amount": f"{cents // 100}.{cents % 100:02d}"}
            async with session.post("/payments", json=body) as response:
                assert response.status == 202
    wrong = await faults(service, sender, ledger=False)

    assert 0 < len(lost) <= len(at_risk)
    assert lost <= at_risk
    # The processors have the times of the first sending, we those of the second: windows of the summaries differ.
    assert [fault for fault in wrong if not fault.startswith("summary")] == []


def stored(service: PairedService) -> set[str]:
    with service.connect() as connection:
        return {name for (name,) in connection.execute("SELECT correlation_id::text FROM payments_payment")}
