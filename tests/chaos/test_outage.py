"""PostgreSQL is unavailable under load: payments are accepted within a second, and stored once and in order afterwards."""

import asyncio
import time
from datetime import datetime
from functools import partial
from typing import Any
from uuid import uuid4

import aiohttp

from registry.data import chores
from tests.bed.template import TENANT
from tests.chaos.outages import away, frozen, takes_writes
from tests.chaos.service import RETURN, Service
from tests.conftest import eventually
from tests.depth import deep

SENDERS = 16
AWAY = deep(
    1.5, 4.0
)  # seconds under load; long enough for pools (1 s), caches (0.8 s) and breakers (0.65 s) to have settled on it
AT_MOST = 1.0  # seconds for an answer, whatever PostgreSQL does

_FOUND = """SELECT p.correlation_id::text, p.id, date_trunc('milliseconds', p.created_at), count(*) OVER (PARTITION BY p.correlation_id)
FROM payments_payment p JOIN registry_tenant t ON t.id = p.tenant_id WHERE t.slug = %s ORDER BY p.id"""


class Sent:
    """What one sender asked for, one after the other, and what it heard."""

    def __init__(self) -> None:
        self.accepted: dict[str, datetime] = {}
        self.statuses: list[int] = []
        self.slowest = 0.0

    async def pay(self, session: aiohttp.ClientSession, **fields: Any) -> tuple[int, dict[str, Any], Any]:
        body = {"correlationId": str(uuid4()), "amount": "1.00", **fields}
        started = time.monotonic()
        async with session.post("/payments", json=body) as response:
            answer = await response.json(content_type=None)
            self.slowest = max(self.slowest, time.monotonic() - started)
            self.statuses.append(response.status)
            if response.status == 202:
                self.accepted[body["correlationId"]] = datetime.fromisoformat(answer["createdAt"])
            return response.status, answer, response.headers


async def in_postgres(service: Service) -> dict[str, tuple[int, datetime, int]]:
    def ask() -> dict[str, tuple[int, datetime, int]]:
        with service.connect() as connection:
            return {name: (id, at, times) for name, id, at, times in connection.execute(_FOUND, [TENANT])}

    return await asyncio.to_thread(ask)


async def drained(service: Service) -> None:
    try:
        await eventually(lambda: not service.spilled(), within=RETURN)
    except TimeoutError:
        raise TimeoutError(f"{service.spilled()} bytes still wait\n{service.last_words()}") from None


async def warm(session: aiohttp.ClientSession) -> None:
    assert (await Sent().pay(session))[0] == 202


async def test_when_postgresql_stops_under_load_every_202_is_stored_once_in_order_and_none_takes_a_second(
    service: Service, session: aiohttp.ClientSession
):
    senders = [Sent() for _ in range(SENDERS)]
    stop = asyncio.Event()

    async def send_on(sender: Sent) -> None:
        while not stop.is_set():
            await sender.pay(session)

    tasks = [asyncio.create_task(send_on(sender)) for sender in senders]
    await eventually(lambda: all(len(sender.accepted) > 20 for sender in senders))
    async with away(service):
        await asyncio.sleep(AWAY)
        waiting = service.spilled()
    await eventually(service.postgres.pid)
    await drained(service)
    many = sum(len(sender.accepted) for sender in senders)
    await eventually(lambda: sum(len(sender.accepted) for sender in senders) > many + 50)  # and directly again
    stop.set()
    await asyncio.gather(*tasks)
    await drained(service)
    found = await in_postgres(service)

    assert waiting > 0
    assert {status for sender in senders for status in sender.statuses} == {202}
    assert max(sender.slowest for sender in senders) < AT_MOST
    for sender in senders:
        ids = [found[name][0] for name in sender.accepted]
        assert ids == sorted(ids)
        assert [found[name][1] for name in sender.accepted] == list(sender.accepted.values())
    assert {times for _, _, times in found.values()} == {1}


async def the_metric_says(session: aiohttp.ClientSession, records: int) -> bool:
    async with session.get("/metrics") as response:
        return f'registry_spill_records{{kind="payment"}} {records}.0' in await response.text()


async def test_during_an_outage_of_postgresql_the_contract_of_payments_holds(
    service: Service, session: aiohttp.ClientSession
):
    await warm(session)
    name, sender = str(uuid4()), Sent()
    batch: list[dict[str, Any]] = [{"correlationId": str(uuid4()), "amount": "2.00"} for _ in range(3)]
    batch[2]["processor"] = "nobody has asked for it by name before"
    changed = {**batch[0], "amount": "3.00"}

    async with away(service):
        first = await sender.pay(session, correlationId=name)
        again = await sender.pay(session, correlationId=name)
        other = await sender.pay(session, correlationId=name, amount="9.99")
        wrong = await sender.pay(session, amount="-1")
        async with session.post("/payments/batch", json={"items": [*batch, batch[1], changed, {}]}) as response:
            verdicts = [verdict["status"] for verdict in (await response.json())["results"]]
        started = time.monotonic()
        async with session.post("/payments", json={"amount": "5.00"}, headers={"Prefer": "wait=1"}) as response:
            preferred = (response.status, response.headers["Preference-Applied"])
            waited = time.monotonic() - started
        async with session.get(f"/payments/{name}/status") as response:
            status = response.status
        async with session.post("/payments", json={}, headers={"Authorization": "Bearer rk_x_unknown"}) as response:
            unknown = response.status
        async with session.get("/health") as response:
            spill = (await response.json())["checks"]["spill"]
        await eventually(partial(the_metric_says, session, 5))
    await drained(service)
    found = await in_postgres(service)

    assert (first[0], again[0], other[0], wrong[0]) == (202, 202, 409, 422)
    assert first[1] == again[1]
    assert (first[2].get("Idempotent-Replayed"), again[2]["Idempotent-Replayed"]) == (None, "true")
    assert verdicts == ["queued", "queued", "queued", "replayed", "conflict", "invalid"]
    assert preferred == (202, "respond-async")
    assert waited < 3
    assert (status, unknown) == (503, 503)
    assert spill["status"] == "ok"
    assert "5 waiting, oldest" in spill["detail"]
    assert found[name][1] == datetime.fromisoformat(first[1]["createdAt"])
    assert {item["correlationId"] for item in batch} <= found.keys()


async def test_a_silent_postgresql_delays_no_sender_by_a_second(service: Service, session: aiohttp.ClientSession):
    """What was under way may be committed once it goes on: then the spill stores nothing a second time."""
    await warm(session)
    sender = Sent()

    async with frozen(service):
        for by_name in ({}, {"processor": "default"}, {"processor": "fallback"}):
            await asyncio.gather(*(sender.pay(session, **by_name) for _ in range(10)))
        started = time.monotonic()
        async with session.post("/payments", json={"amount": "5.00"}, headers={"Prefer": "wait=20"}) as response:
            preferred, waited = response.status, time.monotonic() - started
    await drained(service)
    await eventually(lambda: service.is_ready(), within=RETURN)
    found = await in_postgres(service)

    assert set(sender.statuses) == {202}
    assert sender.slowest < AT_MOST
    assert preferred == 202
    assert waited < AT_MOST
    assert sender.accepted.keys() <= found.keys()
    assert {times for _, _, times in found.values()} == {1}


async def test_after_a_read_only_restart_everything_is_stored_once_writes_are_accepted_and_the_log_is_short(
    service: Service, session: aiohttp.ClientSession
):
    """As a standby does that is not promoted yet."""
    await warm(session)
    sender, before = Sent(), len(lines(service))

    async with away(service):
        for _ in range(20):
            await sender.pay(session)
        settings = service.postgres.folder / "postgresql.auto.conf"
        kept = settings.read_text()
        settings.write_text(f"{kept}default_transaction_read_only = on\n")
    await eventually(lambda: read_only(session), within=RETURN)
    for _ in range(5):
        await sender.pay(session)
    await asyncio.sleep(AWAY)
    waiting = service.spilled()
    await asyncio.to_thread(takes_writes, service)
    await drained(service)
    found = await in_postgres(service)

    assert waiting > 0
    assert sender.statuses == [202] * 25
    assert [found[name][0] for name in sender.accepted] == sorted(found[name][0] for name in sender.accepted)
    assert list(service.data.glob("spill/aside/*")) == []
    said = [line for line in lines(service)[before:] if "database" in line or "spill" in line]
    of_chores = [line for line in said if line.startswith("[housekeeping]")]
    assert len(said) - len(of_chores) < 20, said  # two or three of each process
    # At the start each of the chores runs, as a process of its own.
    assert len(of_chores) < 2 * len(chores.CHORES) + 5, of_chores


async def read_only(session: aiohttp.ClientSession) -> bool:
    async with session.get("/health") as response:
        return (await response.json())["checks"]["database"]["detail"] == "the database is read-only"


def lines(service: Service) -> list[str]:
    return (service.data / "up.log").read_text(errors="replace").splitlines()
