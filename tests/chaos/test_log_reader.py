"""`up` is suspended (Ctrl-Z, a debugger, a full terminal): its parts go on, although nobody reads their log."""

import asyncio
import signal

import aiohttp

from tests.chaos.outages import send
from tests.chaos.service import RETURN, Service
from tests.chaos.test_outage import AT_MOST, Sent, warm
from tests.conftest import eventually

SENDERS = 16
EACH = 40  # payments; with their lines from each process, several times what a pipe takes

_OPEN = "SELECT count(*) FROM payments_payment WHERE correlation_id = ANY(%s::uuid[]) AND status <> 'succeeded'"


async def test_payments_are_accepted_and_settled_while_up_is_suspended(
    service: Service, session: aiohttp.ClientSession
):
    await warm(session)
    senders = [Sent() for _ in range(SENDERS)]

    async def send_all(sender: Sent) -> None:
        for _ in range(EACH):
            await sender.pay(session)

    send(signal.SIGSTOP, [service.popen.pid])
    try:
        await asyncio.gather(*map(send_all, senders))
        names = [name for sender in senders for name in sender.accepted]
        assert {status for sender in senders for status in sender.statuses} == {202}
        assert max(sender.slowest for sender in senders) < AT_MOST
        await eventually(lambda: all_settled(service, names), within=RETURN)
    finally:
        send(signal.SIGCONT, [service.popen.pid])


async def all_settled(service: Service, names: list[str]) -> bool:
    def ask() -> bool:
        with service.connect() as connection:
            return connection.execute(_OPEN, [names]).fetchone() == (0,)

    return await asyncio.to_thread(ask)
