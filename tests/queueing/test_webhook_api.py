"""The API of webhook endpoints: created, changed, tested and replayed with the right scope, invisible to other tenants."""

import base64
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from payments.states import SUCCEEDED
from registry.data import database
from registry.models import AuditEntry
from tests.bed.receiver import Receiver
from tests.conftest import Api, eventually, make_key
from tests.factories import in_thread, make_payment, make_tenant
from tests.queueing.hooks import again, deliveries, delivering, endpoint, fan_out, until

NOWHERE = "http://127.0.0.1:9999/hook"


@pytest.fixture
async def admin(server, tenant):
    async with Api(server, await make_key(tenant, "admin")) as client:
        yield client


@pytest.fixture
async def foreign(server):
    other = await in_thread(make_tenant, f"other-{uuid4().hex[:12]}")
    async with Api(server, await make_key(other, "admin")) as client:
        yield client


async def called(api: Api, method: str, path: str, status: int = 200, **json):
    async with api.session.request(method, path, **({"json": json} if json else {})) as response:
        assert response.status == status, await response.text()
        return await response.json() if status != 204 else None


async def test_an_endpoint_is_created_with_a_secret_that_is_shown_once(admin, tenant):
    made = await called(admin, "POST", "/webhook-endpoints", 201, url=NOWHERE, events=["payment.*", "refund.created"])

    seen = await called(admin, "GET", f"/webhook-endpoints/{made['id']}")
    assert len(base64.b64decode(made["secret"].removeprefix("whsec_"))) == 32
    assert "secret" not in seen
    assert seen["events"] == ["payment.*", "refund.created"]
    assert (seen["state"], seen["waiting"], seen["dead"]) == ("active", 0, 0)


async def test_the_secret_is_encrypted_in_the_database(admin, tenant):
    made = await called(admin, "POST", "/webhook-endpoints", 201, url=NOWHERE)

    [[kept]] = await database.fetch("SELECT secrets FROM queueing_webhookendpoint WHERE tenant_id = %s", [tenant.pk])
    assert made["secret"].encode() not in bytes(kept)


async def test_changes_are_recorded_with_the_key_that_made_them(admin, tenant):
    made = await called(admin, "POST", "/webhook-endpoints", 201, url=NOWHERE)
    changed = await called(admin, "PATCH", f"/webhook-endpoints/{made['id']}", description="the shop's", enabled=False)
    await called(admin, "POST", f"/webhook-endpoints/{made['id']}/rotate-secret")
    await called(admin, "DELETE", f"/webhook-endpoints/{made['id']}", 204)

    entries = await in_thread(lambda: list(AuditEntry.objects.order_by("id").values_list("action", "actor")))
    assert (changed["description"], changed["state"]) == ("the shop's", "disabled")
    assert [action for action, _ in entries] == [
        "endpoint.add", "endpoint.change", "endpoint.rotate", "endpoint.delete",
    ]  # fmt: skip
    assert {actor.split()[0] for _, actor in entries} == {"key"}


async def test_a_key_that_may_only_write_payments_touches_no_endpoint(api, tenant):
    await called(api, "POST", "/webhook-endpoints", 403, url=NOWHERE)
    listed = await called(api, "GET", "/webhook-endpoints")

    assert listed == {"items": []}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"url": "ftp://example.com"}, "url"),
        ({"url": "http://user:password@127.0.0.1/x"}, "url"),
        ({"url": NOWHERE + "#part"}, "url"),
        ({"url": "http://127.0.0.1:25/"}, "url"),
        ({"url": "http://169.254.169.254/latest/meta-data"}, "url"),
        ({"url": NOWHERE, "events": ["payment.exploded"]}, "events"),
        ({"url": NOWHERE, "events": []}, "events"),
        ({"url": NOWHERE, "description": "x" * 201}, "description"),
        ({"url": NOWHERE, "description": "of 4242 4242 4242 4242 12/27 123"}, "description"),
        ({"url": NOWHERE, "secret": "mine"}, "secret"),
        ({}, "url"),
    ],
    ids=lambda value: str(value)[:50],
)
async def test_invalid_fields_are_named(admin, body, field):
    async with admin.post("/webhook-endpoints", json=body) as response:
        problem = await response.json()

    assert response.status == 422
    assert [error["field"] for error in problem["errors"]] == [field]


async def test_a_live_tenant_is_only_called_over_https(server):
    live = await in_thread(make_tenant, f"live-{uuid4().hex[:8]}", mode="live")
    async with Api(server, await make_key(live, "admin")) as api:
        problem = await called(api, "POST", "/webhook-endpoints", 422, url=NOWHERE)

    assert problem["errors"][0]["message"] == "a live tenant's address begins with https://"


async def test_a_tenant_has_a_limited_number_of_endpoints(admin, tenant, monkeypatch):
    monkeypatch.setattr("queueing.outbound.endpoints.ENDPOINTS_AT_MOST", 2)
    for _ in range(2):
        await called(admin, "POST", "/webhook-endpoints", 201, url=NOWHERE)

    await called(admin, "POST", "/webhook-endpoints", 409, url=NOWHERE)


async def test_endpoints_and_deliveries_of_another_tenant_are_not_found(admin, foreign, tenant):
    hook = await endpoint(tenant, NOWHERE)
    await in_thread(make_payment, tenant, status=SUCCEEDED)
    await fan_out()
    [first, *_] = await deliveries(hook)

    for method, path in (
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("GET", "/deliveries"),
        ("POST", "/rotate-secret"),
        ("POST", "/test"),
        ("POST", "/replay"),
    ):
        body = {"to": "2030-01-01T00:00:00Z"} if path == "/replay" else {"enabled": False} if method == "PATCH" else {}
        await called(foreign, method, f"/webhook-endpoints/{hook.uuid}{path}", 404, **body)
    await called(foreign, "GET", f"/webhook-deliveries/{first.pk}", 404)
    await called(foreign, "POST", f"/webhook-deliveries/{first.pk}/replay", 404)

    assert (await called(foreign, "GET", "/webhook-endpoints"))["items"] == []
    assert (await again(hook)).enabled


async def test_a_deleted_endpoint_is_not_found_and_receives_nothing_more(admin, tenant):
    async with Receiver() as receiver:
        hook, other = await endpoint(tenant, receiver.url + "/gone"), await endpoint(tenant, receiver.url)
        await in_thread(make_payment, tenant)
        await fan_out()
        await called(admin, "DELETE", f"/webhook-endpoints/{hook.uuid}", 204)

        async with delivering():
            await until(other, "delivered")

    await called(admin, "GET", f"/webhook-endpoints/{hook.uuid}", 404)
    assert {one.target for one in receiver.heard} == {"/hook"}


async def test_a_new_url_resets_the_failures_of_an_endpoint(admin, tenant):
    hook = await endpoint(tenant, NOWHERE)
    await database.fetch(
        "UPDATE queueing_webhookendpoint SET failing_since = now(), rest_until = now() + interval '1 h'"
    )

    changed = await called(admin, "PATCH", f"/webhook-endpoints/{hook.uuid}", url=NOWHERE + "/2")

    assert (changed["state"], changed["url"]) == ("active", NOWHERE + "/2")
    assert (await again(hook)).rest_until is None


async def test_a_change_to_an_address_inside_is_refused_and_changes_nothing(admin, tenant, settings):
    hook = await endpoint(tenant, NOWHERE)
    settings.WEBHOOK_ALLOW_PRIVATE = False

    await called(admin, "PATCH", f"/webhook-endpoints/{hook.uuid}", 422, url="http://10.0.0.1/", description="x")

    assert ((await again(hook)).url, (await again(hook)).description) == (NOWHERE, "")


# -- Secrets ---------------------------------------------------------------------------------------------------


async def test_for_a_day_both_secrets_sign(admin, tenant):
    async with Receiver() as receiver:
        hook = await endpoint(tenant, receiver.url)
        fresh = await called(admin, "POST", f"/webhook-endpoints/{hook.uuid}/rotate-secret")
        await in_thread(make_payment, tenant)

        async with delivering():
            await until(hook, "delivered")

    [heard] = receiver.heard
    assert fresh["secret"] != hook.secret
    assert heard.verify(fresh["secret"]) == heard.verify(hook.secret)
    assert len(heard.headers["webhook-signature"].split()) == 2


async def test_after_a_day_only_the_new_one_signs():
    from queueing.outbound.signing import Secrets

    now = datetime.now(UTC)
    secrets = Secrets.fresh().rotated(now)

    assert secrets.signing(now + timedelta(hours=23, minutes=59)) == [text for text, _ in secrets.held]
    assert secrets.signing(now + timedelta(hours=24)) == [secrets.newest]


# -- Deliveries --------------------------------------------------------------------------------------------------


async def test_a_test_message_is_sent_whatever_the_endpoint_wants(admin, tenant):
    async with Receiver() as receiver:
        hook = await endpoint(tenant, receiver.url, "dispute.closed")

        async with delivering():
            made = await called(admin, "POST", f"/webhook-endpoints/{hook.uuid}/test", 202)
            await until(hook, "delivered")
        seen = await called(admin, "GET", f"/webhook-deliveries/{made['id']}")

    assert receiver.types == ["endpoint.test"]
    assert seen["body"] == receiver.heard[0].message
    assert seen["tries"][0]["response"]["status"] == 200
    assert seen["tries"][0]["request"]["headers"]["webhook-id"] == receiver.heard[0].id


async def test_deliveries_come_in_pages_the_newest_first_by_what_is_asked(admin, tenant):
    hook = await endpoint(tenant, NOWHERE)
    for _ in range(3):
        await in_thread(make_payment, tenant, status=SUCCEEDED)
    await fan_out()
    base = f"/webhook-endpoints/{hook.uuid}/deliveries"

    first = await called(admin, "GET", f"{base}?limit=4")
    second = await called(admin, "GET", f"{base}?limit=4&cursor={first['next']}")
    queued = await called(admin, "GET", f"{base}?type=payment.queued&status=pending")
    none = await called(admin, "GET", f"{base}?to=2001-01-01")

    ids = [item["id"] for item in first["items"] + second["items"]]
    assert ids == sorted(ids, reverse=True)
    assert (len(ids), second["next"]) == (6, None)
    assert len(queued["items"]) == 3
    assert none["items"] == []


@pytest.mark.parametrize("query", ["status=lost", "from=yesterday", "cursor=x", "limit=0", "limit=9999"])
async def test_an_invalid_filter_is_refused(admin, tenant, query):
    hook = await endpoint(tenant, NOWHERE)

    await called(admin, "GET", f"/webhook-endpoints/{hook.uuid}/deliveries?{query}", 422)


async def test_a_delivery_is_replayed_under_its_own_id(admin, tenant):
    async with Receiver() as receiver:
        hook = await endpoint(tenant, receiver.url)
        await in_thread(make_payment, tenant)

        async with delivering():
            [done] = await until(hook, "delivered")
            await called(admin, "POST", f"/webhook-deliveries/{done.pk}/replay", 202)
            await eventually(lambda: receiver.calls == 2)
            await until(hook, "delivered")

    assert len(set(receiver.ids)) == 1
    assert receiver.heard[0].body == receiver.heard[1].body


async def test_an_open_delivery_is_not_replayed(admin, tenant):
    hook = await endpoint(tenant, NOWHERE)
    await in_thread(make_payment, tenant)
    await fan_out()
    [waiting] = await deliveries(hook)

    await called(admin, "POST", f"/webhook-deliveries/{waiting.pk}/replay", 409)

    assert (await deliveries(hook))[0].tries_from == 0


async def test_a_replay_of_a_time_range_includes_delivered_messages_only_on_request(admin, tenant):
    hook = await endpoint(tenant, NOWHERE)
    for _ in range(3):
        await in_thread(make_payment, tenant)
    await fan_out()
    await database.fetch("UPDATE queueing_webhookdelivery SET status = 'dead', attempt = 10")
    await database.fetch(
        """UPDATE queueing_webhookdelivery SET status = 'delivered' WHERE id = (SELECT max(id) FROM queueing_webhookdelivery)"""
    )
    span = {"from": "2020-01-01T00:00:00Z", "to": "2199-01-01T00:00:00Z"}

    outside = await called(admin, "POST", f"/webhook-endpoints/{hook.uuid}/replay", 202, to="2020-01-01T00:00:00Z")
    dead = await called(admin, "POST", f"/webhook-endpoints/{hook.uuid}/replay", 202, **span)
    rest = await called(admin, "POST", f"/webhook-endpoints/{hook.uuid}/replay", 202, **span, deadOnly=False)
    await called(admin, "POST", f"/webhook-endpoints/{hook.uuid}/replay", 422, deadOnly=False)

    assert (outside["replayed"], dead["replayed"], rest["replayed"]) == (0, 2, 1)
    assert {(one.status, one.tries_from) for one in await deliveries(hook)} == {("pending", 10)}


async def test_closed_deliveries_are_deleted_with_their_log_after_a_month_and_open_ones_stay(tenant):
    from queueing.outbound.deliveries import trim

    async with Receiver() as receiver:
        hook = await endpoint(tenant, receiver.url)
        await in_thread(make_payment, tenant)
        async with delivering():
            await until(hook, "delivered")
    await in_thread(make_payment, tenant)
    await fan_out()
    await database.fetch("UPDATE queueing_webhookdelivery SET changed_at = now() - interval '31 days'")

    removed = await trim()

    [left] = await deliveries(hook)
    assert (removed, left.status) == (1, "pending")
    assert await database.fetch("SELECT count(*) FROM queueing_webhookattempt") == [(0,)]
