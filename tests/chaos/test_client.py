"""The Python client while the web process is killed: nothing is lost or booked twice, and its caller notices nothing."""

import asyncio
from contextlib import aclosing
from uuid import UUID

from registry_client import AsyncClient, Message, NewMessage, Retry
from tests.chaos.service import RETURN, Service
from tests.chaos.traffic import OPTIONS, until_answered
from tests.chaos.victims import VICTIMS
from tests.conftest import Api, eventually

STRIKES = 2
PATIENT = Retry(budget=RETURN)
BETWEEN = 10  # payments between two strikes
WEB = next(victim for victim in VICTIMS if victim.name == "web")


async def test_a_client_submits_watches_and_consumes_while_the_web_process_is_killed(service: Service):
    async with Api(service.url, service.key) as api:
        # A message whose pop was answered into the void comes again once its lease has ended.
        await until_answered(api.session, "POST", "/api/v1/configure", json={"queue": "clients", "options": OPTIONS})
    async with AsyncClient(service.url, service.key, retry=PATIENT, reconnect=PATIENT) as client:
        watching = asyncio.create_task(watch(client, numbers := []))
        consuming = asyncio.create_task(client.queue.consume("clients", noting(seen := []), wait=1.0))
        await eventually(lambda: submit_one(client, numbers), within=RETURN)

        submitted: list[UUID] = []
        for strike in range(STRIKES + 1):
            for _ in range(BETWEEN):
                await client.queue.push_many([NewMessage(queue="clients", payload=len(submitted))])
                submitted.append((await client.payments.submit("19.90")).correlation_id)
            if strike < STRIKES:
                assert WEB.strike(service)
        settled = [await client.payments.wait(one, timeout=2 * RETURN) for one in submitted]
        await eventually(lambda: set(seen) == set(range(len(submitted))), within=RETURN)
        await eventually(lambda: numbers[-1] >= numbers[0] + 3 * len(submitted), within=RETURN)
        for task in (watching, consuming):
            task.cancel()
        await asyncio.gather(watching, consuming, return_exceptions=True)

    booked = [set(processor.booked) for processor in service.processors.values()]
    assert {one.status for one in settled} == {"succeeded"}
    assert all(sum(str(one) in books for books in booked) == 1 for one in submitted)
    assert numbers == list(range(numbers[0], numbers[-1] + 1))


async def submit_one(client: AsyncClient, numbers: list[int]) -> bool:
    """Whether the watcher sees the changes of a payment by now."""
    await client.payments.submit("1.00")
    return bool(numbers)


async def watch(client: AsyncClient, numbers: list[int]) -> None:
    async with aclosing(client.payments.watch_all()) as changes:
        async for change in changes:
            numbers.append(change.sequence)  # noqa: PERF401 - another task reads it meanwhile


def noting(seen: list[int]):
    async def handle(message: Message) -> None:
        seen.append(message.data)

    return handle
