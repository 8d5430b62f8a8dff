"""`returnUrl`: where a payer goes back to once the payment's state is final."""

import pytest

from registry.models import Tenant
from tests.conftest import Api
from tests.factories import in_thread, make_processor
from tests.settling import settle_due

SHOP = "https://shop.example/orders/7?paid=1"


async def page_of(api: Api, payment: dict) -> str:
    path = payment["liveUrl"]
    async with api.get(path[path.index("/payments/") :]) as response:
        return await response.text()


async def test_the_payers_page_leads_back_to_the_shop_once_the_state_is_final(api: Api, tenant: Tenant) -> None:
    await in_thread(make_processor, tenant)
    payment = await api.pay(returnUrl=SHOP)
    before = await page_of(api, payment)
    await settle_due()

    assert (await api.detail(payment["correlationId"]))["returnUrl"] == SHOP
    assert SHOP not in before
    assert f'href="{SHOP}"' in await page_of(api, payment)


async def test_another_return_url_is_no_other_content(api: Api) -> None:
    first = await api.pay(returnUrl=SHOP)
    body = {"correlationId": first["correlationId"], "amount": "19.90", "returnUrl": "https://other.example/"}

    async with api.post("/payments", json=body) as response:
        assert (response.status, response.headers["Idempotent-Replayed"]) == (202, "true")
    assert (await api.detail(first["correlationId"]))["returnUrl"] == SHOP


@pytest.mark.parametrize(
    "url", ["shop.example", "ftp://shop.example/", "javascript:alert(1)", "https://", "https://a b/"]
)
async def test_what_is_no_address_of_a_shop_is_refused(api: Api, url: str) -> None:
    async with api.post("/payments", json={"amount": "19.90", "returnUrl": url}) as response:
        refusal = await response.json()

    assert (response.status, [error["field"] for error in refusal["errors"]]) == (422, ["returnUrl"])


async def test_a_live_tenants_shop_has_https(api: Api, tenant: Tenant) -> None:
    await Tenant.async_objects.filter(pk=tenant.pk).aupdate(mode="live")

    async with api.post("/payments", json={"amount": "19.90", "returnUrl": "http://shop.example/"}) as response:
        assert response.status in (403, 422)
        assert "returnUrl" in await response.text()
