"""Webhooks of processors: which requests are accepted and stored, byte for byte, and which are refused."""

import asyncio
import json
import time

import aiohttp
import pytest

from payments.inbound.api import LARGEST
from payments.inbound.signature import sign
from registry.data import database, db_breaker
from registry.data.cache import STALE
from registry.models import Tenant
from tests.conftest import eventually
from tests.factories import in_thread
from tests.payments.inbound import SECRET, account_of, deliver, event, rows, seal_secrets


@pytest.fixture
async def account(tenant):
    return await account_of(tenant)


# -- Taken in ----------------------------------------------------------------------------------------------


async def test_an_event_is_kept_byte_for_byte_with_its_headers(server, tenant, account):
    sent = event(object={"id": "pi_1", "metadata": {"name": "Zoë \\ \u2028"}})
    body = json.dumps(sent, indent=3).encode()

    status, said = await deliver(server, account, body)

    assert (status, said) == (200, {"received": True})
    [(kept, kind, object_id, source, state, headers)] = await rows(
        tenant, "body, type, object_id, source, status, headers"
    )
    assert (bytes(kept), kind, object_id, source, state) == (
        body,
        "payment_intent.succeeded",
        "pi_1",
        "delivery",
        "received",
    )
    assert headers["stripe-signature"].startswith("t=")
    assert headers["user-agent"].startswith("Python")


async def test_credentials_are_not_stored_with_the_headers(server, tenant, account):
    body = json.dumps(event()).encode()
    headers = {"Stripe-Signature": sign(body, SECRET.encode()), "Cookie": "sessionid=1", "Authorization": "Bearer rk_1"}

    await deliver(server, account, body, headers=headers)

    [kept] = await rows(tenant, "headers")
    assert {"cookie", "authorization"} & set(kept) == set()


async def test_a_repeated_event_gets_the_same_response_and_is_stored_once(server, tenant, account):
    sent = event()

    answers = [await deliver(server, account, sent) for _ in range(3)]

    assert answers == [(200, {"received": True})] * 3
    assert await rows(tenant) == [sent["id"]]


async def test_fifty_deliveries_of_one_event_at_once_are_one_row(server, tenant, account):
    sent = event()

    answers = await asyncio.gather(*(deliver(server, account, sent) for _ in range(50)))

    assert {status for status, _ in answers} == {200}
    assert await rows(tenant) == [sent["id"]]


async def test_the_same_event_of_two_accounts_is_two(server, tenant, account, stranger):
    other = await in_thread(lambda: Tenant.objects.exclude(pk=tenant.pk).get())
    theirs = await account_of(other)
    sent = event()

    await deliver(server, account, sent)
    await deliver(server, theirs, sent)

    assert await rows(tenant) == await rows(other) == [sent["id"]]


@pytest.mark.parametrize("kind", ["balance.available", "v3.something.new", "charge.dispute.created"])
async def test_events_of_any_type_are_stored_and_objects_need_no_id(server, tenant, account, kind):
    status, _ = await deliver(server, account, event(kind, {"object": "balance"}))

    assert status == 200
    assert await rows(tenant, "type, object_id") == [(kind, "")]


@pytest.mark.parametrize("signer", ["whsec_old", "whsec_new"])
async def test_during_a_rotation_each_secret_verifies(server, tenant, signer):
    account = await account_of(tenant, "whsec_old", "whsec_new")

    status, _ = await deliver(server, account, event(), secrets=(signer,))

    assert status == 200


async def test_a_delivery_signed_with_two_secrets_needs_only_one_that_we_know(server, tenant, account):
    status, _ = await deliver(server, account, event(), secrets=("whsec_unknown", SECRET))

    assert status == 200


async def test_a_removed_secret_verifies_nothing_a_second_later(server, tenant, account):
    await deliver(server, account, event())
    await in_thread(seal_secrets, account, "whsec_new")

    async def refused() -> bool:
        return (await deliver(server, account, event()))[0] == 400

    await eventually(refused, within=5.0)  # of a busy machine
    assert STALE < 1
    assert (await deliver(server, account, event(), secrets=("whsec_new",)))[0] == 200


@pytest.mark.parametrize("age", [-290, 290])
async def test_clocks_may_differ_by_almost_five_minutes(server, account, age):
    status, _ = await deliver(server, account, event(), at=time.time() - age)

    assert status == 200


async def test_events_are_taken_for_tenants_whose_money_still_moves(server, tenant, account):
    await in_thread(lambda: Tenant.objects.filter(pk=tenant.pk).update(status="suspended"))

    status, _ = await deliver(server, account, event())

    assert status == 200


async def test_a_body_of_almost_one_mebibyte_is_accepted(server, tenant, account):
    body = json.dumps(event(object={"id": "pi_1", "note": "x" * (LARGEST - 1000)})).encode()

    status, _ = await deliver(server, account, body)

    assert status == 200
    assert await rows(tenant, "length(body)") == [len(body)]


# -- Refused ---------------------------------------------------------------------------------------------------


async def nothing_kept(tenant) -> bool:
    return await rows(tenant) == []


async def test_a_body_of_more_than_one_mebibyte_is_not_read(server, tenant, account):
    status, said = await deliver(server, account, b"x" * (LARGEST + 1))

    assert (status, said["type"]) == (413, "urn:registry:problem:too-large")


async def test_the_body_of_an_unsigned_request_is_not_read(server, tenant, account):
    """The answer does not wait for the body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.rpartition(":")[2]))
    writer.write(
        f"POST /webhooks/stripe/{tenant.slug}.cards HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n".encode()
    )

    async with asyncio.timeout(5):
        first = await reader.readline()

    writer.close()
    assert first.startswith(b"HTTP/1.1 400 ")


async def test_a_thin_event_is_accepted(server, tenant, account):
    """Stripe's other format: the time is a text, and the object is not included."""
    thin = {"id": "evt_1", "object": "v2.core.event", "type": "v2.core.ping", "created": "2026-11-30T12:00:00.500Z"}

    status, _ = await deliver(server, account, json.dumps(thin).encode())

    assert status == 200
    assert await rows(tenant, "extract(epoch FROM created)::bigint") == [1796040000]


GOOD = b'{"id":"evt_1","type":"a.b","created":1}'


@pytest.mark.parametrize(
    ("header", "detail"),
    [
        (None, "there is no Stripe-Signature header"),
        ("", "a signature wants one time"),
        ("v1=00", "a signature wants one time"),
        ("t={now}", "a signature wants one time"),
        ("t={now},v0={right}", "a signature wants one time"),
        ("t=soon,v1={right}", "a signature wants one time"),
        ("t=-5,v1={right}", "a signature wants one time"),
        ("t=٣,v1={right}", "a signature wants one time"),
        ("t={now},t={now},v1={right}", "a signature wants one time"),
        ("t=9999999999999999,v1={right}", "a signature wants one time"),
        ("t={now}," + "v1=00," * 16 + "v1={right}", "more than 16 signatures"),
        ("t={now},v1={right}" + ",v0=" + "0" * 4096, "the signature is too long"),
    ],
    ids=["none", "empty", "no time", "no digest", "only v0", "word", "negative", "not ASCII", "two times", "far", "many", "long"],
)  # fmt: skip
async def test_an_invalid_signature_is_refused_with_the_reason(server, tenant, account, header, detail):
    stamp, _, digest = sign(GOOD, SECRET.encode()).removeprefix("t=").partition(",v1=")
    headers = {} if header is None else {"Stripe-Signature": header.format(now=stamp, right=digest)}

    status, said = await deliver(server, account, GOOD, headers=headers)

    assert (status, said["type"]) == (400, "urn:registry:problem:not-signed")
    assert detail in said["detail"]
    assert await nothing_kept(tenant)


@pytest.mark.parametrize(("age", "detail"), [(310, "310 s ago"), (-310, "310 s in the future"), (10**9, "s ago")])
async def test_a_stale_signature_is_refused_and_one_of_the_future_as_well(server, tenant, account, age, detail):
    status, said = await deliver(server, account, event(), at=int(time.time()) - age)

    assert (status, said["type"]) == (400, "urn:registry:problem:not-signed")
    assert detail.removeprefix("310") in said["detail"]
    assert await nothing_kept(tenant)


async def test_two_signature_headers_are_refused_though_both_are_right(server, tenant, account):
    right = sign(GOOD, SECRET.encode())

    status, said = await deliver(
        server, account, GOOD, headers=[("Stripe-Signature", right), ("Stripe-Signature", right)]
    )

    assert (status, said["detail"]) == (400, "there is more than one signature header")
    assert await nothing_kept(tenant)


async def test_a_signature_of_another_body_time_or_secret_is_refused(server, tenant, account):
    right = sign(GOOD, SECRET.encode())
    stamp, _, digest = right.removeprefix("t=").partition(",")
    later = f"t={int(stamp) + 1},{digest}"

    answers = [
        await deliver(server, account, GOOD + b" ", headers={"Stripe-Signature": right}),
        await deliver(server, account, GOOD, headers={"Stripe-Signature": later}),
        await deliver(server, account, GOOD, secrets=("whsec_other",)),
        await deliver(server, account, GOOD, headers={"Stripe-Signature": right[:-1] + "é"}),
    ]

    assert [(status, said["type"]) for status, said in answers] == [(400, "urn:registry:problem:wrongly-signed")] * 4
    assert await nothing_kept(tenant)


async def test_an_unknown_address_gets_the_response_of_a_wrong_signature(server, tenant, account):
    addresses = (
        f"{tenant.slug}.unknown", f"nobody-{tenant.slug}.cards", tenant.slug, "..cards", f"{tenant.slug}.cards.x",
        f"{tenant.slug.upper()}.cards", f"{tenant.slug}.cards%00", "x" * 300,
    )  # fmt: skip
    _, wrong = await deliver(server, account, event(), secrets=("whsec_other",))

    answers = [await deliver(server, account, event(), address=address) for address in addresses]

    assert [status for status, _ in answers] == [400] * len(addresses)
    assert all(said == wrong for _, said in answers)
    assert await nothing_kept(tenant)


async def test_an_account_without_secrets_accepts_nothing_not_even_signed_with_an_empty_secret(server, tenant):
    account = await account_of(tenant)
    await in_thread(seal_secrets, account, "")

    answers = [
        await deliver(server, account, event(), secrets=(secret,)) for secret in ("", "a secret that nobody has")
    ]

    assert [status for status, _ in answers] == [400, 400]
    assert await nothing_kept(tenant)


async def test_only_accounts_of_kind_stripe_have_such_an_address(server, tenant):
    account = await account_of(tenant)
    await in_thread(lambda: type(account).objects.filter(pk=account.pk).update(kind="sandbox"))

    status, said = await deliver(server, account, event())

    assert (status, said["type"]) == (400, "urn:registry:problem:wrongly-signed")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b"\0",
        b'{"id":"evt_1","type":"a.b","created":1}\0',
        b'{"id":"evt_\xff\xfe","type":"a.b","created":1}',
        b'{"type":"a.b","created":1}',
        b'{"id":"","type":"a.b","created":1}',
        b'{"id":7,"type":"a.b","created":1}',
        b'{"id":"evt_\\u0000","type":"a.b","created":1}',
        b'{"id":"evt_1","type":"a\\u0000b","created":1}',
        b'{"id":"evt_1","type":"a.b","created":1,"data":{"object":{"id":"\\u0000"}}}',
        b'{"id":"evt_1","type":"a.b","created":1,"account":"\\u0000"}',
        b'{"id":"evt_1","type":"a.b"}',
        b'{"id":"evt_1","created":1}',
        b'{"id":"evt_1","type":"a.b","created":"2026-01-01"}',
        b'{"id":"evt_1","type":"a.b","created":1e30}',
        b'{"id":"evt_1","type":"a.b","created":-1}',
        b'{"id":"' + b"e" * 256 + b'","type":"a.b","created":1}',
        b'{"id":"evt_1","type":"' + b"t" * 101 + b'","created":1}',
        b'{"id":"evt_1","type":"a.b","created":1,"livemode":"yes"}',
        b'{"id":"evt_1","type":"a.b","created":1,"data":[]}',
        b'{"id":"evt_1","type":"a.b","created":1,"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda body: repr(body[:60]),
)
async def test_a_body_that_is_no_event_is_refused_though_it_is_signed(server, tenant, account, body):
    status, said = await deliver(server, account, body)

    assert (status, said["type"]) == (400, "urn:registry:problem:no-event")
    assert await nothing_kept(tenant)


async def test_a_body_with_nul_in_its_texts_is_stored_unchanged(server, tenant, account):
    body = b'{"id":"evt_1","type":"a.b","created":1,"data":{"object":{"id":"x","note":"\\u0000"}}}'

    status, _ = await deliver(server, account, body)

    assert status == 200
    assert [bytes(kept) for kept in await rows(tenant, "body")] == [body]


async def test_only_post_is_accepted(server, account):
    path = f"{server}/webhooks/stripe/{account.tenant.slug}.cards"

    async with aiohttp.ClientSession() as session, session.get(path) as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST")


async def test_while_the_database_is_unavailable_the_response_is_503(server, tenant, account):
    """Stripe sends refused events again; an event in the spill could be overtaken by the next one."""
    await deliver(server, account, event())
    db_breaker.current().away = True  # as after a probe that failed

    status, said = await deliver(server, account, event())

    assert (status, said["type"]) == (503, "urn:registry:problem:unavailable")
    assert len(await rows(tenant)) == 1


async def test_the_response_is_sent_after_the_commit(server, tenant, account):
    """A lock on the table delays the commit, and with it the answer."""
    async with database.transaction() as conn:
        await conn.execute("LOCK TABLE payments_inboundevent IN SHARE MODE")
        answer = asyncio.create_task(deliver(server, account, event()))
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'payments_inboundevent'::regclass"

        async def somebody_waits() -> bool:
            return (await database.fetch(waiting))[0][0] > 0

        await eventually(somebody_waits)
        assert not answer.done()

    assert (await answer)[0] == 200
