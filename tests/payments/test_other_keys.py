"""While payments are unsettled at a processor, its secret key can be replaced only by one of the same account."""

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from aiohttp import web

from payments.models import Processor
from payments.routing import accounts
from payments.states import FAILED, PROCESSING, REQUIRES_ACTION, SUCCEEDED, UNCERTAIN
from registry.data import database
from tests.factories import in_thread, make_payment, make_stripe

OWNERS = {"sk_test_old": "acct_shop", "sk_test_rolled": "acct_shop", "sk_test_other": "acct_other"}

type Change = Callable[[str], Coroutine[Any, Any, Any]]


class Registrar:
    """A Stripe that says whose keys are, and nothing else."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.url = ""

    async def own(self, request: web.Request) -> web.Response:
        key = request.headers["Authorization"].removeprefix("Bearer ")
        self.asked.append(key)
        if key not in OWNERS:
            return web.json_response({"error": {"message": "Invalid API Key"}}, status=401)
        return web.json_response({"id": OWNERS[key], "object": "account"})


@pytest.fixture
async def registrar() -> AsyncIterator[Registrar]:
    one, app = Registrar(), web.Application()
    app.router.add_get("/v1/account", one.own)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    one.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield one
    await runner.cleanup()


@pytest.fixture
async def processor(tenant, registrar) -> Processor:
    return await in_thread(make_stripe, tenant, registrar.url, secrets={"secretKey": "sk_test_old"})


@pytest.fixture
def change(tenant) -> Change:
    async def run(key: str) -> Any:
        async with database.own_connection():
            return await accounts.change_secrets(tenant=tenant, name="stripe", options={"secretKey": key}, actor="olga")

    return run


async def key_of(processor: Processor) -> str:
    stored = await in_thread(lambda: Processor.objects.get(pk=processor.pk))
    return accounts.opened(stored)["secretKey"]


@pytest.mark.parametrize("state", [PROCESSING, UNCERTAIN, REQUIRES_ACTION])
async def test_another_accounts_key_is_refused_while_payments_are_unsettled_there(tenant, processor, change, state):
    await in_thread(make_payment, tenant, status=state, processor=processor)

    with pytest.raises(accounts.Refused, match="1 payment is under way or in doubt here"):
        await change("sk_test_other")

    assert await key_of(processor) == "sk_test_old"


async def test_a_key_whose_account_is_unknown_is_refused(tenant, processor, change):
    await in_thread(make_payment, tenant, status=UNCERTAIN, processor=processor)

    with pytest.raises(accounts.Refused, match="does not say"):
        await change("sk_test_unknown")

    assert await key_of(processor) == "sk_test_old"


async def test_a_new_key_of_the_same_account_is_taken(tenant, processor, registrar, change):
    await in_thread(make_payment, tenant, status=UNCERTAIN, processor=processor)

    await change("sk_test_rolled")

    assert await key_of(processor) == "sk_test_rolled"
    assert registrar.asked == ["sk_test_old", "sk_test_rolled"]


@pytest.mark.parametrize("state", [SUCCEEDED, FAILED])
async def test_once_nothing_is_unsettled_the_account_is_not_checked(tenant, processor, registrar, change, state):
    await in_thread(make_payment, tenant, status=state, processor=processor)

    await change("sk_test_other")

    assert await key_of(processor) == "sk_test_other"
    assert registrar.asked == []
