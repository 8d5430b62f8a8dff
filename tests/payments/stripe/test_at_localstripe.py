"""Our processor before localstripe, which was written by others: cards, 3-D Secure, capture, cancel and refunds as they see them.

What it has never heard of is taken out of the requests on their way. It forgets none of the rest.
"""

from collections.abc import AsyncIterator, Iterator
from urllib.parse import parse_qsl, urlencode
from uuid import uuid4

import aiohttp
import msgspec
import pytest
from aiohttp import web

from payments.processors.base import Account, Order, Outcome, Result
from payments.processors.stripe.processor import StripeProcessor
from registry.tenants.encryption import seal
from tests.bed.localstripe import SECRET_KEY, localstripe
from tests.payments.test_stripe_processor import order, refund_order_of

UNHEARD_OF = (
    "automatic_payment_methods",
    "confirm",
    "description",
    "off_session",
    "cancellation_reason",
    "created",
    "reason",
)


@pytest.fixture(scope="module")
def theirs() -> Iterator[str]:
    with localstripe() as url:
        yield url


@pytest.fixture
async def narrowed(theirs: str) -> AsyncIterator[str]:
    """Its address, by way of somebody who leaves out what it does not know."""

    def known(text: str) -> str:
        return urlencode([(k, v) for k, v in parse_qsl(text) if k.partition("[")[0] not in UNHEARD_OF])

    async def forward(request: web.Request) -> web.Response:
        query = known(request.query_string)
        address = f"{theirs}{request.path}{'?' + query if query else ''}"
        body = known(await request.text()) if request.method == "POST" else None
        headers = {k: v for k, v in request.headers.items() if k in ("Authorization", "Content-Type")}
        async with aiohttp.request(request.method, address, data=body, headers=headers) as answer:
            return web.Response(status=answer.status, text=await answer.text(), content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    await runner.cleanup()


@pytest.fixture
async def processor() -> AsyncIterator[StripeProcessor]:
    async with StripeProcessor() as one:
        yield one


@pytest.fixture
def account(narrowed: str) -> Account:
    sealed = seal({"secretKey": SECRET_KEY}, place="processor 7")
    return Account(
        id=7, tenant_id=1, name="stripe", kind="stripe", url=narrowed, fee_ppm=0, options={}, enabled=True,
        endpoint="e", sealed=sealed,
    )  # fmt: skip


def known_as(order: Order, outcome: Outcome, **more) -> Order:
    return msgspec.structs.replace(order, reference=outcome.reference, **more)


async def secure_card(url: str) -> str:
    number = {"number": "4000000000003220", "exp_month": 12, "exp_year": 2034, "cvc": "123"}
    key = {"Authorization": f"Bearer {SECRET_KEY}"}
    async with aiohttp.request(
        "POST", f"{url}/v1/payment_methods", json={"type": "card", "card": number}, headers=key
    ) as answer:
        assert answer.status == 200, await answer.text()
        return (await answer.json())["id"]


async def authenticate(url: str, outcome: Outcome, *, passed: bool) -> None:
    said = {"success": str(passed).lower(), "client_secret": outcome.action["clientSecret"], "key": "pk_test_x"}
    async with aiohttp.request(
        "POST", f"{url}/v1/payment_intents/{outcome.reference}/_authenticate", data=said
    ) as answer:
        assert answer.status == 200, await answer.text()


async def test_a_card_is_confirmed_and_booked(processor, account):
    outcome = await processor.send(order("pm_card_visa"), account)

    assert outcome.result is Result.BOOKED
    assert outcome.reference.startswith("pi_")


@pytest.mark.parametrize(("passed", "becomes"), [(True, Result.BOOKED), (False, Result.CANCELED)])
async def test_a_card_that_requires_authentication_waits_for_it(processor, account, theirs, passed, becomes):
    mine = order(await secure_card(theirs))
    waiting = await processor.send(mine, account)
    await authenticate(theirs, waiting, passed=passed)

    settled = await processor.look_up(known_as(mine, waiting), account)

    assert (waiting.result, waiting.action["needs"]) == (Result.REQUIRES_ACTION, "authentication")
    assert settled.result is becomes  # it keeps no reason of a cancel, by which a decline is told from one


async def test_an_authorized_amount_is_captured(processor, account):
    manual = msgspec.structs.replace(account, options={"capture": "manual"})
    mine = order("pm_card_visa")
    held = await processor.send(mine, manual)

    captured = await processor.look_up(known_as(mine, held, method={**mine.method, "capture": True}), manual)

    assert (held.action, captured.result) == ({"type": "capture"}, Result.BOOKED)


async def test_a_waiting_payment_is_canceled(processor, account):
    mine = order()
    waiting = await processor.send(mine, account)

    canceled = await processor.look_up(known_as(mine, waiting, canceling=True), account)

    assert (waiting.result, canceled.result) == (Result.REQUIRES_ACTION, Result.CANCELED)


async def test_a_refund_is_made_and_found_at_localstripe(processor, account):
    booked = await processor.send(order("pm_card_visa"), account)
    owed = refund_order_of(booked.reference, refund_id=uuid4())

    given = await processor.refund(owed, account)
    found = await processor.look_up_refund(owed, account)

    assert (given.result, found.result, given.reference) == (Result.BOOKED, Result.BOOKED, found.reference)
