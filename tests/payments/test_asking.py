"""Reading payments over the API: one payment, a page, and an export of all."""

import asyncio
import csv
import io
import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection

from payments.states import Status
from registry.data import database
from registry.models import Tenant
from tests.conftest import Api, at_work, eventually
from tests.factories import in_thread, make_payment, make_processor

MANY = """
INSERT INTO payments_payment (tenant_id, correlation_id, fingerprint, amount, currency, description, wanted_processor,
    status, sequence, code, refunded, attempt, priority, run_at, created_at, changed_at)
SELECT %s, gen_random_uuid(), '', n, 'BRL', 'number ' || n, '', 'queued', 1, '', 0, 0, 0, now(),
    timestamptz '2025-07-15 12:00:00Z' + n / 7 * interval '1 millisecond', now()
FROM generate_series(1, %s) n
"""  # seven of the same instant


async def have(tenant: Tenant, count: int) -> None:
    def insert() -> None:
        with connection.cursor() as cursor:
            cursor.execute(MANY, (tenant.pk, count))

    await in_thread(insert)


async def page(api: Api, **query: Any) -> dict[str, Any]:
    async with api.get("/payments", params=query) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def walk(api: Api, **query: Any) -> list[dict[str, Any]]:
    """All items, page by page."""
    items, cursor = [], None
    while True:
        found = await page(api, **query, **({"cursor": cursor} if cursor else {}))
        items += found["items"]
        if not (cursor := found["next"]):
            return items


# -- One ---------------------------------------------------------------------------------------------------------


async def test_the_response_to_an_accepted_payment_has_its_addresses(api: Api):
    async with api.post("/payments", json={"amount": 19.9}) as response:
        said = await response.json()

    assert list(said) == ["correlationId", "status", "amount", "currency", "createdAt", "statusUrl", "liveUrl"]
    assert (said["status"], said["amount"], said["currency"]) == ("queued", "19.90", "BRL")
    assert datetime.fromisoformat(said["createdAt"]).tzinfo and said["createdAt"].endswith("Z")
    assert response.headers["Location"] == said["statusUrl"]
    async with api.get(said["statusUrl"]) as status:
        assert (await status.json())["correlationId"] == said["correlationId"]


async def test_the_status_of_a_queued_payment(api: Api):
    payment = await api.pay()

    said = await api.status(payment["correlationId"])

    assert said == {
        "correlationId": payment["correlationId"],
        "status": "queued",
        "amount": "19.90",
        "currency": "BRL",
        "processor": None,
        "attempts": 0,
        "updatedAt": payment["createdAt"],
        "sequence": 1,
    }


async def test_the_detail_of_a_settled_payment_has_its_history(api: Api, default):
    payment = await api.pay("100.00", description="a chair", metadata={"order": 7})
    async with at_work():
        status = await api.until(payment["correlationId"], "succeeded")

    said = await api.detail(payment["correlationId"])

    assert {name: said[name] for name in status} == status | {"attempts": said["attempts"]}
    assert (said["description"], said["metadata"], said["fee"], said["refunded"]) == (
        "a chair",
        {"order": 7},
        "5.00",
        "0.00",
    )
    [attempt] = said["attempts"]
    assert (attempt["number"], attempt["processor"], attempt["outcome"]) == (1, "default", "booked")
    assert attempt["reason"] and attempt["latencyMs"] >= 0
    booking = default.booked[payment["correlationId"]]
    assert datetime.fromisoformat(attempt["requestedAt"]) == booking.requested_at
    assert [(event["sequence"], event["status"]) for event in said["timeline"]] == [
        (1, "queued"),
        (2, "processing"),
        (3, "succeeded"),
    ]


async def test_an_id_is_found_however_it_is_written(api: Api):
    payment = await api.pay()

    said = await api.status(payment["correlationId"].upper())

    assert said["correlationId"] == payment["correlationId"]


# -- A page --------------------------------------------------------------------------------------------------------


async def test_pages_hold_every_payment_once_newest_first(api: Api, tenant):
    await have(tenant, 123)

    items = await walk(api, limit=10)

    assert [item["amount"] for item in items] == [f"{n / 100:.2f}" for n in range(123, 0, -1)]


async def test_the_total_counts_all_pages(api: Api, tenant, stranger):
    await have(tenant, 23)
    await stranger.pay()

    found = await page(api, limit=5)

    assert (len(found["items"]), found["total"]) == (5, 23)
    assert (await page(api, limit=5, cursor=found["next"]))["total"] == 23


async def test_a_page_that_holds_exactly_the_rest_is_the_last(api: Api, tenant):
    await have(tenant, 10)

    found = await page(api, limit=10)

    assert (len(found["items"]), found["next"]) == (10, None)


async def test_new_payments_do_not_shift_the_pages(api: Api, tenant):
    await have(tenant, 20)
    first = await page(api, limit=10)
    await api.pay()

    second = await page(api, limit=10, cursor=first["next"])

    assert [item["amount"] for item in second["items"]] == [f"{n / 100:.2f}" for n in range(10, 0, -1)]


async def test_a_tenant_without_payments_has_an_empty_page(api: Api, stranger):
    await stranger.pay()

    found = await page(api)

    assert found == {"items": [], "next": None, "total": 0}


async def test_an_item_has_the_fields_of_the_status_and_more(api: Api):
    payment = await api.pay(description="a chair")

    [item] = (await page(api))["items"]

    assert item == {
        **await api.status(payment["correlationId"]),
        "createdAt": payment["createdAt"],
        "description": "a chair",
    }


@pytest.mark.parametrize("status", Status)
async def test_payments_are_filtered_by_status(api: Api, tenant, status):
    for each in Status:
        await in_thread(make_payment, tenant, status=each)

    found = await page(api, status=status.value)

    assert ([item["status"] for item in found["items"]], found["total"]) == ([status.value], 1)


async def test_payments_are_filtered_by_the_processor_that_booked_them(api: Api, tenant):
    one = await in_thread(make_processor, tenant, "one")
    other = await in_thread(make_processor, tenant, "other")
    wanted = await in_thread(make_payment, tenant, status=Status.SUCCEEDED, processor=one)
    await in_thread(make_payment, tenant, status=Status.SUCCEEDED, processor=other)

    found = await page(api, processor="one")

    assert [(item["correlationId"], item["processor"]) for item in found["items"]] == [
        (str(wanted.correlation_id), "one")
    ]
    assert (await page(api, processor="nobody"))["total"] == 0


async def test_payments_are_filtered_by_time_both_ends_included(api: Api, tenant):
    times = [datetime(2025, 7, 15, 12, 0, second, tzinfo=UTC) for second in range(5)]
    for at in times:
        await in_thread(make_payment, tenant, created_at=at)

    found = await page(api, **{"from": "2025-07-15T12:00:01Z", "to": "2025-07-15T09:00:03.000-03:00"})

    assert [item["createdAt"][17:19] for item in found["items"]] == ["03", "02", "01"]
    assert found["total"] == 3


@pytest.mark.parametrize(("window", "count"), [({"from": "2025-07-15"}, 2), ({"to": "2025-07-15"}, 2)])
async def test_a_date_alone_is_its_midnight_utc(api: Api, tenant, window, count):
    for at in ("2025-07-14T23:59:59.999Z", "2025-07-15T00:00:00Z", "2025-07-15T00:00:00.001Z"):
        await in_thread(make_payment, tenant, created_at=at)

    assert (await page(api, **window))["total"] == count


@pytest.mark.parametrize("text", ["2025-7-5", "2025-02-30", "20250715", "２０２５-07-15", "2025-07-15Z"])
async def test_an_invalid_date_is_422(api: Api, text):
    async with api.get("/payments", params={"from": text}) as response:
        said = await response.json()

    assert response.status == 422
    assert [fault["field"] for fault in said["errors"]] == ["from"]


# -- All -------------------------------------------------------------------------------------------------------------


async def test_thousands_are_streamed_as_lines_of_json(api: Api, tenant, stranger):
    await have(tenant, 3210)
    await stranger.pay()

    async with api.get("/payments", headers={"Accept": "application/x-ndjson"}) as response:
        items = [json.loads(line) for line in (await response.read()).splitlines()]

    assert response.content_type == "application/x-ndjson"
    assert [item["amount"] for item in items] == [f"{n / 100:.2f}" for n in range(3210, 0, -1)]


async def test_thousands_are_streamed_as_csv(api: Api, tenant):
    await have(tenant, 3210)

    async with api.get("/payments", headers={"Accept": "text/csv"}) as response:
        rows = list(csv.DictReader(io.StringIO(await response.text())))

    assert (response.content_type, response.charset) == ("text/csv", "utf-8")
    assert 'filename="payments.csv"' in response.headers["Content-Disposition"]
    assert [row["amount"] for row in rows] == [f"{n / 100:.2f}" for n in range(3210, 0, -1)]


async def test_an_export_respects_the_filters(api: Api, tenant):
    for each in Status:
        await in_thread(make_payment, tenant, status=each)

    async with api.get("/payments?status=failed", headers={"Accept": "application/x-ndjson"}) as response:
        [item] = (await response.read()).splitlines()

    assert json.loads(item)["status"] == "failed"


@pytest.mark.parametrize("kind", ["text/csv", "application/x-ndjson"])
async def test_a_stream_whose_first_read_fails_is_503_and_no_empty_file(api: Api, tenant, kind):
    await api.pay()
    async with database.transaction() as conn:
        await conn.execute("LOCK TABLE payments_payment")  # also by readers it must be waited for
        asking = asyncio.create_task(asked(api, kind))
        await eventually(read_is_cut)
        status, headers = await asking

    assert status == 503
    assert headers["Retry-After"] == "1"
    assert headers["Content-Type"] == "application/problem+json"


async def asked(api: Api, kind: str) -> tuple[int, Any]:
    async with api.get("/payments", headers={"Accept": kind}) as response:
        return response.status, response.headers


async def read_is_cut() -> bool:
    """Whether a reader waited, and lost its connection."""
    sql = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND query LIKE '%%payments_payment%%' AND pid <> pg_backend_pid()"""
    return bool(await database.fetch(sql))


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n="])
async def test_no_cell_is_a_formula_to_a_spreadsheet(api: Api, start):
    await api.pay(description=f'{start}HYPERLINK("http://evil.example","a,b")')

    async with api.get("/payments", headers={"Accept": "text/csv"}) as response:
        [row] = csv.DictReader(io.StringIO(await response.text(), newline=""))

    assert row["description"] == f'\'{start}HYPERLINK("http://evil.example","a,b")'


async def test_a_reader_who_leaves_in_the_middle_of_a_stream_costs_no_connection(api: Api, tenant):
    await have(tenant, 3000)

    for _ in range(35):  # more than the pool has
        async with api.get("/payments", headers={"Accept": "application/x-ndjson"}) as response:
            await response.content.read(100)
            response.close()

    assert (await page(api, limit=1))["total"] == 3000


# -- HEAD ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/payments", "/payments/{id}", "/payments/{id}/status", "/payments-summary", "/health/live"]
)
async def test_head_is_get_without_the_body(api: Api, path):
    path = path.replace("{id}", (await api.pay())["correlationId"])
    async with api.get(path) as response:
        wanted = (response.status, response.content_type, response.headers["Content-Length"])

    async with api.session.head(path) as response:
        assert (response.status, response.content_type, response.headers["Content-Length"]) == wanted
        assert await response.read() == b""


async def test_head_of_a_stream_sends_its_type_and_nothing_else(api: Api, tenant):
    await have(tenant, 10)

    async with api.session.head("/payments", headers={"Accept": "text/csv"}) as response:
        assert (response.status, response.content_type) == (200, "text/csv")
        assert await response.read() == b""


async def test_head_of_an_unknown_payment_is_404(api: Api):
    async with api.session.head(f"/payments/{uuid4()}") as response:
        assert response.status == 404


async def test_numbers_with_many_zeros_in_front_do_not_slip_past_their_limits(api: Api):
    payment = await api.pay()

    for query in ("limit=00000000000199999999", "cursor=x&limit=" + "0" * 12 + "501"):
        async with api.get(f"/payments?{query}") as response:
            assert response.status == 422
    async with api.get(f"/payments/{payment['correlationId']}/events?wait={'0' * 12}99999") as response:
        assert response.status == 422
