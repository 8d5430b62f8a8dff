"""The queue console: permissions of members, guarded actions, and what viewers are shown."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from django.test import Client as Browser

from queueing import demo
from queueing.broker import crypto, operate, statistics
from queueing.broker.statistics import QueueDepth, TrafficCounts
from queueing.console import figures
from queueing.console.figures import QueueFigures
from queueing.console.pages import SHOWN_BYTES, pretty
from queueing.templatetags.queues import sparkline
from registry.errors import Unavailable
from registry.http.client import Client
from registry.models import AuditEntry, Tenant
from tests.conftest import eventually
from tests.factories import in_thread, make_person, make_tenant
from tests.queueing.mq import Mq

TOKEN = "a" * 32


class Visit:
    """A person's browser, without the browser."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def get(self, path: str, **query: str) -> tuple[int, str]:
        async with self.session.get(path, params=query, allow_redirects=False) as response:
            return response.status, response.headers.get("Location") or await response.text()

    async def post(self, path: str, **fields: Any) -> tuple[int, str]:
        # Encoded here: aiohttp would not repeat a name.
        headers = {"X-CSRFToken": TOKEN, "Content-Type": "application/x-www-form-urlencoded"}
        body = urlencode(fields, doseq=True)
        async with self.session.post(path, data=body, headers=headers, allow_redirects=False) as response:
            return response.status, response.headers.get("Location") or await response.text()


type As = Callable[..., Any]


@pytest.fixture
def visiting(server: str) -> As:
    @asynccontextmanager
    async def visiting(person: Any = None) -> AsyncIterator[Visit]:
        cookies = {"csrftoken": TOKEN}
        if person is not None:
            cookies["sessionid"] = await in_thread(session_of, person)
        jar = aiohttp.CookieJar(unsafe=True)  # cookies of a bare address too
        async with aiohttp.ClientSession(server, cookies=cookies, cookie_jar=jar) as session:
            yield Visit(session)

    return visiting


def session_of(person: Any) -> str:
    client = Browser()
    client.force_login(person)
    return client.cookies["sessionid"].value


async def member(tenant_id: int, role: str) -> Any:
    return await in_thread(lambda: make_person(tenant=Tenant.objects.get(pk=tenant_id), role=role))


async def a_dead_letter(mq: Mq, queue: str) -> str:
    """Its number, in a queue of one message."""
    await mq.push(queue, {"secret": "bank details"})
    await mq.ack((await mq.pop(queue))["messages"][0], "dlq", error="no")
    return str((await mq.sql("SELECT id FROM queueing_deadmessage WHERE tenant_id = %s", mq.tenant_id))[0][0])


async def open_letters(mq: Mq) -> int:
    sql = "SELECT count(*) FROM queueing_deadmessage WHERE tenant_id = %s AND ended_at IS NULL"
    return (await mq.sql(sql, mq.tenant_id))[0][0]


async def pages_of(mq: Mq, queue: str) -> list[str]:
    [message] = await mq.push(queue, {"secret": "bank details"})
    partition = message["partition_id"]
    return [
        f"/queues/{queue}",
        f"/dead-letters/{queue}",
        f"/partitions/{partition}",
        f"/partitions/{partition}/messages/1",
    ]


# -- Whose -------------------------------------------------------------------------------------------------


async def test_a_member_sees_all_pages_of_their_tenant(visiting: As, mq: Mq, queue: str):
    pages = await pages_of(mq, queue)

    async with visiting(await member(mq.tenant_id, "viewer")) as visit:
        found = [await visit.get(page) for page in ["/queues", *pages]]

    assert [status for status, _ in found] == [200] * 5
    assert queue in found[0][1]
    assert "bank details" in found[4][1]


async def test_queues_of_another_tenant_are_not_found(visiting: As, mq: Mq, foreign: Mq, queue: str, tenant):
    pages = await pages_of(mq, queue)
    theirs = await in_thread(lambda: Tenant.objects.get(pk=foreign.tenant_id).slug)

    async with visiting(await member(foreign.tenant_id, "owner")) as visit:
        found = [await visit.get(page, tenant=slug) for page in pages for slug in (tenant.slug, theirs)]
        found.append(await visit.get("/queues", tenant=tenant.slug))
        acted = [await visit.post(f"{page}?tenant={tenant.slug}", do="purge", reason="x", seen=1) for page in pages]

    assert [status for status, _ in found] == [404] * 9
    assert {status for status, _ in acted} <= {404, 405}


async def test_a_superuser_chooses_a_tenant(visiting: As, mq: Mq, foreign: Mq, queue: str, tenant):
    await foreign.push(queue, 1)
    theirs = await in_thread(lambda: Tenant.objects.get(pk=foreign.tenant_id).slug)

    async with visiting(await in_thread(make_person)) as visit:
        chosen = await visit.get(f"/queues/{queue}", tenant=theirs)
        other = await visit.get(f"/queues/{queue}", tenant=tenant.slug)

    assert (chosen[0], other[0]) == (200, 404)
    assert f'value="{tenant.slug}"' in chosen[1]


async def test_a_visitor_who_is_not_signed_in_is_sent_to_the_login(visiting: As, mq: Mq, queue: str):
    await mq.push(queue, 1)

    async with visiting() as visit:
        assert await visit.get("/queues") == (302, "/login?next=%2Fqueues")
        assert (await visit.get(f"/queues/{queue}"))[0] == 404


# -- Who acts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("role", "status", "left"), [("viewer", 404, 1), ("operator", 302, 0), ("owner", 302, 0)])
async def test_viewers_read_and_operators_act(visiting: As, mq: Mq, queue: str, role: str, status: int, left: int):
    number = await a_dead_letter(mq, queue)

    async with visiting(await member(mq.tenant_id, role)) as visit:
        _, page = await visit.get(f"/dead-letters/{queue}")
        answer = await visit.post(f"/dead-letters/{queue}", do="replay", id=number, seen=1, reason="the line is back")

    assert answer[0] == status
    assert ("Replay" in page) == (role != "viewer")
    assert await open_letters(mq) == left
    assert await in_thread(AuditEntry.objects.count) == 1 - left


@pytest.mark.parametrize("mode", ["sandbox", "live"])
async def test_a_guest_of_the_open_tenant_sees_none_of_its_queues(
    visiting: As, mq: Mq, queue: str, tenant, settings, mode: str
):
    settings.REGISTRY_OPEN_TENANT = tenant.slug
    await in_thread(Tenant.objects.filter(pk=tenant.pk).update, open=True, mode=mode)
    pages = await pages_of(mq, queue)

    async with visiting() as visit:
        overview = await visit.get("/queues")
        acted = await visit.post("/queues", do="maintenance", what="pop", to="on")
        found = [(await visit.get(page))[0] for page in pages]

    assert overview == (302, "/login?next=%2Fqueues")
    assert acted[0] == 302
    assert set(found) == {404}


async def test_an_action_requires_a_reason_and_the_confirmed_number_of_rows(visiting: As, mq: Mq, queue: str):
    await a_dead_letter(mq, queue)

    async with visiting(await member(mq.tenant_id, "operator")) as visit:
        silent = await visit.post(f"/dead-letters/{queue}", do="purge", seen=1, reason=" ")
        blind = await visit.post(f"/dead-letters/{queue}", do="purge", seen=7, reason="tidy up")

    assert (silent[0], blind[0]) == (422, 422)
    assert "You saw 7 rows, now there are 1" in blind[1]
    assert await open_letters(mq) == 1
    assert not await in_thread(AuditEntry.objects.exists)


async def test_dead_letters_stay_open_when_their_replay_cannot_be_recorded(mq: Mq, queue: str, monkeypatch):
    number = int(await a_dead_letter(mq, queue))
    replay = {"tenant_id": mq.tenant_id, "numbers": [number], "actor": "olga", "reason": "the line is back"}

    async def refuses(**_: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr("registry.tenants.audit.record", refuses)
        with pytest.raises(RuntimeError):
            await operate.replay(**replay)

    assert await open_letters(mq) == 1
    first, second = await operate.replay(**replay), await operate.replay(**replay)
    assert ((first.rows, first.lost), (second.rows, second.lost)) == ((1, 0), (0, 1))
    assert await open_letters(mq) == 0


@pytest.mark.parametrize("at", ["0001-01-01T00:00+05:00", "9999-12-31T23:59-05:00", "tomorrow", ""])
async def test_a_group_is_not_moved_to_an_invalid_time(visiting: As, mq: Mq, queue: str, at: str):
    await mq.push(queue, 1)
    await mq.data(queue, consumerGroup="g", autoAck=True)

    async with visiting(await member(mq.tenant_id, "operator")) as visit:
        order = {"do": "seek", "group": "g", "to": "time", "seen": 1, "reason": "again"}
        status, page = await visit.post(f"/queues/{queue}", **order, at=at)

    assert status == 422
    assert "Choose a date and time." in page
    assert await mq.at_rest(queue)


async def test_dead_letters_of_another_queue_are_not_replayed_by_naming_them(
    visiting: As, mq: Mq, foreign: Mq, queue: str
):
    await mq.push(queue, 1)
    theirs = await a_dead_letter(foreign, queue)

    async with visiting(await member(mq.tenant_id, "operator")) as visit:
        answer = await visit.post(f"/dead-letters/{queue}", do="replay", id=theirs, seen=1, reason="mine now")

    assert answer[0] == 302
    assert await open_letters(foreign) == 1


# -- What is told --------------------------------------------------------------------------------------------


async def test_viewers_do_not_see_encrypted_payloads(visiting: As, mq: Mq, queue: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(crypto, "_cipher", crypto.Cipher({"k1": bytes(32)}, setting=crypto.SETTING))
    await mq.configure(queue, encrypted=True)
    await a_dead_letter(mq, queue)
    pages = (await pages_of(mq, queue))[1:]

    async with visiting(await member(mq.tenant_id, "viewer")) as visit:
        hidden = [(await visit.get(page))[1] for page in pages]
    async with visiting(await member(mq.tenant_id, "operator")) as visit:
        shown = [(await visit.get(page))[1] for page in pages]

    assert not any("bank details" in page for page in hidden)
    assert ["bank details" in page for page in shown] == [True, False, True]  # the list of messages decrypts nothing


async def test_a_long_payload_is_truncated(visiting: As, mq: Mq, queue: str):
    [message] = await mq.push(queue, "x" * 3 * SHOWN_BYTES)

    async with visiting(await member(mq.tenant_id, "viewer")) as visit:
        _, page = await visit.get(f"/partitions/{message['partition_id']}/messages/1")

    assert "the first 64 KiB are shown" in page
    assert len(page) < 2 * SHOWN_BYTES


def test_numbers_of_a_payload_stay_as_they_were_written():
    assert (
        pretty(b'{"a":123456789012345678901234567890,"b":1.10}')
        == '{\n  "a": 123456789012345678901234567890,\n  "b": 1.10\n}'
    )


async def test_the_obvious_address_of_dead_letters_redirects_to_them(visiting: As, mq: Mq, queue: str):
    await mq.push(queue, 1)
    await mq.push(f"{queue}-b/dead", 1)

    async with visiting(await member(mq.tenant_id, "viewer")) as visit:
        led = await visit.get(f"/queues/{queue}/dead")
        named = await visit.get(f"/queues/{queue}-b/dead")

    assert led[0] == 302
    assert led[1].startswith(f"/dead-letters/{queue}?")
    assert named[0] == 200


# -- The admin -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "words"), [("deadmessage_replay", "Replay (1)"), ("deadmessage_purge", "Purge (1)")]
)
async def test_operators_end_dead_letters_in_the_admin_with_a_reason(
    visiting: As, mq: Mq, queue: str, tenant, action: str, words: str
):
    number = await a_dead_letter(mq, queue)
    chosen = {"action": action, "_selected_action": number}

    async with visiting(await member(mq.tenant_id, "operator")) as visit:
        _, listed = await visit.get("/admin/queueing/deadmessage/")
        asked = await visit.post("/admin/queueing/deadmessage/", **chosen)
        done = await visit.post("/admin/queueing/deadmessage/", **chosen, seen=1, reason="the line is back")

    assert f'href="/dead-letters/{queue}?tenant={tenant.slug}"' in listed
    assert words in asked[1]
    assert done[0] == 302
    assert await open_letters(mq) == 0
    entry = await in_thread(AuditEntry.objects.get)
    assert (entry.action, entry.rows, entry.reason) == (action.replace("_", "."), 1, "the line is back")


async def test_the_admin_lists_queues_and_groups_of_the_members_tenants(visiting: As, mq: Mq, foreign: Mq, queue: str):
    await a_dead_letter(mq, queue)
    await a_dead_letter(foreign, f"{queue}-theirs")

    async with visiting(await member(mq.tenant_id, "viewer")) as visit:
        pages = [(await visit.get(f"/admin/queueing/{kind}/"))[1] for kind in ("queue", "group", "deadmessage")]
    async with visiting(await in_thread(make_person)) as visit:
        _, every = await visit.get("/admin/queueing/queue/")

    assert all(f"/{queue}?" in page and f"{queue}-theirs" not in page for page in pages)
    assert f"{queue}-theirs" in every


# -- The demo ------------------------------------------------------------------------------------------------


async def test_the_demo_pushes_and_reads_messages(server: str, key: str, mq: Mq, monkeypatch: pytest.MonkeyPatch):
    quick = {"PUSH_EVERY": 0.02, "READ_EVERY": 0.02, "WORKING": (0, 0.02)}
    for name, value in {**quick, "FAILING": 1.0, "MOST_DEAD": 2}.items():
        monkeypatch.setattr(demo, name, value)

    async def alive() -> bool:
        done = await mq.sql(
            "SELECT count(*) FROM queueing_consumer WHERE tenant_id = %s AND consumed > 3", mq.tenant_id
        )
        return done[0][0] >= 2 and await open_letters(mq) >= 2

    async with Client(server, headers={"Authorization": f"Bearer {key}"}) as client:
        task = asyncio.create_task(demo.run(client))
        await eventually(alive)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert await open_letters(mq) == 2


# -- What it costs -------------------------------------------------------------------------------------------


async def test_concurrent_views_share_one_query_of_the_figures(
    visiting: As, mq: Mq, queue: str, monkeypatch: pytest.MonkeyPatch
):
    await mq.push(queue, 1)
    asked = []
    real = statistics.depths

    async def counted(*args: Any, **more: Any) -> list[QueueDepth]:
        asked.append(args)
        await asyncio.sleep(0.2)
        return await real(*args, **more)

    monkeypatch.setattr(statistics, "depths", counted)
    async with visiting(await member(mq.tenant_id, "viewer")) as visit:
        found = await asyncio.gather(*(visit.get("/queues") for _ in range(8)))

    assert [status for status, _ in found] == [200] * 8
    assert len(asked) == 1


async def test_a_database_that_is_away_has_its_own_page(visiting: As, mq: Mq, monkeypatch: pytest.MonkeyPatch):
    async def away(*_: Any, **__: Any) -> list[QueueDepth]:
        raise Unavailable

    monkeypatch.setattr(statistics, "depths", away)
    async with visiting(await member(mq.tenant_id, "viewer")) as visit:
        status, page = await visit.get("/queues")

    assert status == 503
    assert "The database is unavailable" in page


def queue_figures(pending: int, groups: int, *minutes: TrafficCounts) -> QueueFigures:
    fields = dict.fromkeys(QueueDepth.__struct_fields__, 0) | {"pending": pending, "groups": groups, "name": "q"}
    return QueueFigures(QueueDepth(**fields), list(minutes), 0, 0, 0)


def test_past_backlogs_are_computed_from_the_current_one():
    of = queue_figures(4, 2, TrafficCounts(), TrafficCounts(pushed=5), TrafficCounts(pushed=3, completed=6, buried=2))

    assert of.history == [0, 5, 4]


def test_a_sparkline_stays_within_its_box():
    points = [point.split(",") for point in sparkline([0, 10, 5]).split()]

    assert [float(x) for x, _ in points] == [0, 48, 96]
    assert [float(y) for _, y in points] == [23, 1, 12]


def test_the_current_minute_is_not_drawn():
    point = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
    young = figures.Snapshot(
        point.replace(second=3), [point.replace(hour=11, minute=59), point], [], [TrafficCounts(pushed=60)] * 2
    )
    older = figures.Snapshot(
        point.replace(second=30), [point.replace(hour=11, minute=59), point], [], [TrafficCounts(pushed=60)] * 2
    )

    assert figures.series(young)["in"] == [1.0]
    assert figures.series(older)["in"] == [1.0, 2.0]


async def test_a_superuser_begins_at_the_open_tenant_on_every_page(visiting: As, settings: Any, tenant: Tenant):
    await in_thread(make_tenant, "aaa-first")
    settings.REGISTRY_OPEN_TENANT = tenant.slug
    await Tenant.async_objects.filter(pk=tenant.pk).aupdate(open=True)
    async with visiting(await in_thread(make_person, "olga")) as visit:
        pages = [(await visit.get(address))[1] for address in ("/", "/queues", "/webhooks")]

    assert all(f'<option value="{tenant.slug}" selected>' in page for page in pages)


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (r'"caf\u00e9"', '"café"'),
        (r'"\ud83d\ude00"', '"😀"'),
        (r'"\ud83d"', r'"\ud83d"'),  # half a character
        (r'"\u0022\u005c"', r'"\u0022\u005c"'),  # JSON must escape these
        (r'"\\u00e9"', r'"\\u00e9"'),  # a backslash, then four letters and digits
        (r'"\u202e"', r'"\u202e"'),  # it would turn the text around
        (r'"\u000a"', r'"\u000a"'),
    ],
)
def test_escaped_characters_are_shown_as_themselves_where_that_is_the_same_json(stored: str, shown: str):
    assert pretty(stored.encode()) == shown
    assert json.loads(shown) == json.loads(stored)
