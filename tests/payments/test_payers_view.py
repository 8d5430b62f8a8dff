"""What a payment's link opens: the payer's fields, and no processor, attempt, fee, routing or dispute, however it is read."""

import json
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import aiohttp
import pytest

from payments.books.payer import FIELDS
from payments.books.shown import DISPUTES
from payments.models import Payment, Processor
from payments.processors.reports import DisputeReport, Subject
from payments.refunds import disputes
from tests.conftest import Api
from tests.factories import in_thread, make_processor
from tests.payments.refunding import ask, book, pay_back
from tests.settling import configure, settle_all

PROCESSOR = "acquirer-nine"
SHOP = "https://shop.example/orders/7"
# Of the seller's side: the processor, why it was chosen, what it cost, what the bank says.
SECRETS = re.compile(
    f"{PROCESSOR}|cheapest|probe|breaker|attempt|latency|fee\\b|http_|disput|fraudulent|warehouse", re.I
)


@pytest.fixture
async def processor(tenant) -> Processor:
    return await in_thread(make_processor, tenant, PROCESSOR, options={"delay": 0})


@pytest.fixture
async def payment(api: Api, tenant, processor) -> dict[str, Any]:
    """Paid at the second attempt, refunded in part, and disputed: everything that can be told of a payment."""
    await configure(tenant, PROCESSOR, failing=True)
    payment = await api.pay("19.90", description="Two coffees", returnUrl=SHOP, metadata={"place": "warehouse"})
    await settle_all(tenant, "queued")
    await configure(tenant, PROCESSOR, failing=False)
    await settle_all(tenant)
    await ask(api, payment["correlationId"], {"amount": "5.00", "reason": "came late from the warehouse"})
    await pay_back(UUID(payment["correlationId"]), "returned")
    await disputed(tenant, processor, payment)
    return payment


async def disputed(tenant, processor: Processor, payment: dict[str, Any], status: str = "needs_response") -> None:
    report = DisputeReport(
        reference="du_1",
        subject=Subject(tenant_id=tenant.pk, correlation_id=UUID(payment["correlationId"])),
        amount=1490,
        currency="BRL",
        reason="fraudulent",
        status=status,
        due_by=datetime(2030, 7, 15, tzinfo=UTC),
        withdrawn=1490,
        movements=1,
        opened_at=datetime(2026, 7, 15, tzinfo=UTC),
    )
    await book(disputes, tenant, processor, report)


def token_of(payment: dict[str, Any]) -> str:
    return urlsplit(payment["liveUrl"]).query


async def over_the_socket(api: Api, path: str, session: aiohttp.ClientSession, last: int) -> list[dict[str, Any]]:
    """The greeting, and every event from the first on."""
    async with session.ws_connect(path) as ws:
        messages = [await ws.receive_json(timeout=5)]
        await ws.send_json({"type": "resume", "after": 0})
        while len(messages) == 1 or messages[-1]["sequence"] < last:
            messages.append(await ws.receive_json(timeout=5))
    return messages


async def test_the_links_socket_tells_the_payers_fields_only(api: Api, payment):
    last = (await api.status(payment["correlationId"]))["sequence"]
    async with aiohttp.ClientSession(api.address) as payer:
        path = f"/ws/payments/{payment['correlationId']}?{token_of(payment)}"
        messages = await over_the_socket(api, path, payer, last)

    assert [message["sequence"] for message in messages[1:]] == list(range(1, last + 1))
    assert [set(message) for message in messages] == [{"type", "sequence", "payment"}] * (last + 1)
    assert [tuple(message["payment"]) for message in messages] == [FIELDS] * (last + 1)
    assert not SECRETS.search(json.dumps(messages))
    told = messages[0]["payment"]
    assert (told["refunded"], told["returnUrl"], told["description"]) == ("5.00", SHOP, "Two coffees")


async def test_the_links_long_poll_tells_the_payers_fields_only(api: Api, payment):
    async with aiohttp.ClientSession(api.address) as payer:
        path = f"/payments/{payment['correlationId']}/events?wait=0&{token_of(payment)}"
        async with payer.get(path) as response:
            answer = await response.json()

    assert len(answer["events"]) > 6
    assert [tuple(message["payment"]) for message in answer["events"]] == [FIELDS] * len(answer["events"])
    assert not SECRETS.search(json.dumps(answer))
    assert answer["events"][-1]["payment"]["refunded"] == "5.00"


@pytest.mark.parametrize("headers", [{}, {"HX-Request": "true"}], ids=["page", "fragment"])
async def test_the_links_page_shows_what_concerns_the_payer(api: Api, payment, headers: dict[str, str]):
    async with aiohttp.ClientSession(api.address, headers=headers) as payer:
        async with payer.get(f"/payments/{payment['correlationId']}/live?{token_of(payment)}") as response:
            html = await response.text()

    assert response.status == 200
    assert not SECRETS.search(html), SECRETS.search(html)
    assert "partly refunded" in html and "R$5.00 of it was refunded." in html and SHOP in html


async def test_the_look_up_of_a_payer_who_returns_tells_nothing(api: Api, payment):
    async with aiohttp.ClientSession(api.address, headers={"X-Requested-With": "fetch"}) as payer:
        async with payer.post(f"/payments/{payment['correlationId']}/look?{token_of(payment)}") as response:
            assert (response.status, await response.read()) == (204, b"")


async def test_the_links_token_gives_no_right_to_act(api: Api, payment):
    async with aiohttp.ClientSession(api.address) as payer:
        for place in ("act", "refund"):
            async with payer.get(
                f"/payments/{payment['correlationId']}/{place}?{token_of(payment)}&do=replay", allow_redirects=False
            ) as response:
                assert response.status == 404, place


async def test_a_key_is_told_the_processor_and_what_took_the_money_back(api: Api, payment):
    last = (await api.status(payment["correlationId"]))["sequence"]
    messages = await over_the_socket(api, f"/ws/payments/{payment['correlationId']}", api.session, last)
    async with api.get(f"/payments/{payment['correlationId']}/events?wait=0") as response:
        polled = (await response.json())["events"]

    assert messages[-1]["payment"]["processor"] == PROCESSOR
    assert (messages[-1]["shown"], messages[-1]["refunded"]) == ("disputed", "5.00")
    assert [set(message) - {"type", "sequence", "payment"} for message in messages[1:4]] == [set()] * 3
    assert polled == messages[1:]


async def test_a_list_finds_open_and_lost_disputes(api: Api, tenant, payment, processor):
    async def found() -> tuple[bool, bool]:
        rows = Payment.async_objects.of(tenant.pk).annotate(**DISPUTES)
        return await rows.values_list("disputed", "lost").aget()

    before = await found()
    await disputed(tenant, processor, payment, "lost")

    assert (before, await found()) == ((True, False), (False, True))
