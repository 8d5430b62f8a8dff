"""A repeated request gets its first response, although limits, processors, currency or plan of the tenant changed since."""

from typing import Any
from uuid import uuid4

import pytest

from payments.models import Processor
from payments.states import CANCELED, FAILED, SUCCEEDED, Status
from registry.models import Tenant
from tests.conftest import Api, eventually
from tests.factories import in_thread, make_payment, make_processor
from tests.payments.refunding import ask
from tests.payments.test_batch import send
from tests.payments.test_idempotency import payment, post
from tests.settling import hasten_caches


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten_caches(monkeypatch)


async def change(tenant: Tenant, api: Api, **fields: Any) -> None:
    """Change the tenant, and wait until the process that accepts has heard of it."""
    await in_thread(lambda: Tenant.objects.filter(pk=tenant.pk).update(**fields))
    await eventually(lambda: refused(api))


async def refused(api: Api) -> bool:
    """Whether a payment that nobody has made before is not taken as it used to be."""
    async with api.post("/payments", json=payment(amount="19.95")) as response:
        return response.status != 202 or (await response.json())["currency"] != "BRL"


async def without_processor(tenant: Tenant, api: Api, *, delete: bool) -> None:
    mine = Processor.objects.filter(tenant=tenant, name="shop")
    await in_thread(lambda: mine.delete() if delete else mine.update(enabled=False))

    async def gone() -> bool:
        async with api.post("/payments", json=payment(processor="shop")) as response:
            return response.status == 422

    await eventually(gone)


async def test_after_the_limit_was_lowered(api: Api, tenant: Tenant):
    body = payment()
    first = await post(api, body)
    await change(tenant, api, max_amount=100)

    assert await post(api, body) == (202, first[1], "true")
    assert (await post(api, body | {"amount": "19.91"}))[0] == 409
    assert (await post(api, body | {"correlationId": str(uuid4())}))[0] == 422


@pytest.mark.parametrize("delete", [False, True], ids=["off", "deleted"])
async def test_after_its_processor_was_switched_off_or_deleted(api: Api, tenant: Tenant, delete: bool):
    await in_thread(make_processor, tenant, "shop")
    body = payment(processor="shop")
    first = await post(api, body)
    await without_processor(tenant, api, delete=delete)

    assert await post(api, body) == (202, first[1], "true")
    assert (await post(api, body | {"amount": "19.91"}))[0] == 409


@pytest.mark.parametrize("currency", ["USD", "JPY"])
async def test_a_missing_currency_is_compared_as_it_was_understood_the_first_time(
    api: Api, tenant: Tenant, currency: str
):
    body, named = payment(), payment(currency="BRL")
    first, second = await post(api, body), await post(api, named)
    await change(tenant, api, currency=currency)

    assert await post(api, body) == (202, first[1], "true")
    assert await post(api, body | {"currency": None}) == (202, first[1], "true")
    assert await post(api, body | {"currency": "BRL"}) == (202, first[1], "true")
    assert await post(api, {**named, "currency": None}) == (202, second[1], "true")
    assert (await post(api, body | {"amount": "20.00"}))[0] == 409
    assert (await post(api, body | {"currency": "USD"}))[0] == 409


async def test_after_a_live_tenant_was_blocked(api: Api, tenant: Tenant):
    body = payment()
    first = await post(api, body)
    await change(tenant, api, mode="live", blocked="its plan is not paid", currency="USD")

    assert await post(api, body) == (202, first[1], "true")
    assert (await post(api, body | {"amount": "20.00"}))[0] == 409
    assert (await post(api, body | {"correlationId": str(uuid4())}))[0] == 403


async def test_under_an_idempotency_key_as_under_an_id(api: Api, tenant: Tenant):
    body, key = {"amount": "19.90"}, {"Idempotency-Key": f"order {uuid4()}"}
    first = await post(api, body, **key)
    await change(tenant, api, max_amount=100, currency="JPY")

    assert await post(api, body, **key) == (202, first[1], "true")


async def test_item_by_item_in_a_batch(api: Api, tenant: Tenant):
    await in_thread(make_processor, tenant, "shop")
    items = [payment(), payment(processor="shop"), payment(amount="5.00"), payment(amount="0.50")]
    await send(api, *items)
    await without_processor(tenant, api, delete=True)
    await change(tenant, api, max_amount=100, currency="JPY")

    verdicts = await send(api, *items, payment(currency="BRL"), items[0] | {"amount": "20.00"})

    assert [one["status"] for one in verdicts] == ["replayed"] * 4 + ["invalid", "conflict"]


async def test_a_batch_of_a_blocked_tenant_returns_payments_accepted_before(api: Api, tenant: Tenant):
    items = [payment(), payment()]
    await send(api, *items)
    await change(tenant, api, mode="live", blocked="its plan is not paid")

    verdicts = await send(api, *items, fresh := payment())
    async with api.post("/payments/batch", json={"items": [fresh]}) as response:
        alone = response.status

    assert [one["status"] for one in verdicts] == ["replayed", "replayed", "invalid"]
    assert verdicts[2]["error"]["detail"] == "its plan is not paid"
    assert alone == 403


async def test_faults_of_a_new_payment_are_all_named(api: Api, tenant: Tenant):
    await change(tenant, api, max_amount=100)
    body = payment(processor="nobody", metadata={str(n): n for n in range(51)})

    async with api.post("/payments", json=body) as response:
        said = await response.json(content_type=None)

    assert response.status == 422
    assert {fault["field"] for fault in said["errors"]} == {"amount", "processor", "metadata"}


# -- Refunds, captures and cancels ------------------------------------------------------------------------------------------


async def test_a_refund_under_a_key_though_nothing_is_left_by_then(api: Api, tenant: Tenant):
    paid = await in_thread(lambda: make_payment(tenant, status=SUCCEEDED, processor=make_processor(tenant)))
    first = await ask(api, paid.correlation_id, {}, **{"Idempotency-Key": "k1"})
    await in_thread(lambda: Processor.objects.filter(tenant=tenant).update(enabled=False))

    again = await ask(api, paid.correlation_id, {}, **{"Idempotency-Key": "k1"})
    other = await ask(api, paid.correlation_id, {}, **{"Idempotency-Key": "k2"})

    assert (first[0], again[0], other[0]) == (202, 202, 409)
    assert (again[1]["id"], again[2]["Idempotent-Replayed"]) == (first[1]["id"], "true")


@pytest.mark.parametrize("ended", [SUCCEEDED, FAILED, CANCELED])
@pytest.mark.parametrize(
    ("action", "asked"), [("capture", {"method": {"capture": True}}), ("cancel", {"canceling": True})]
)
async def test_an_accepted_payment_is_never_refused_when_it_is_repeated(
    api: Api, tenant: Tenant, action: str, asked: dict[str, Any], ended: Status
):
    mine = await in_thread(lambda: make_payment(tenant, status=ended, processor=make_processor(tenant), **asked))

    async with api.post(f"/payments/{mine.correlation_id}/{action}") as response:
        said = await response.json(content_type=None)

    assert said["status"] == ended
    assert response.status == (200 if (action, ended) == ("cancel", CANCELED) else 202)


@pytest.mark.parametrize(("action", "ended"), [("capture", CANCELED), ("cancel", FAILED), ("capture", SUCCEEDED)])
async def test_a_new_payment_is_refused_as_usual(api: Api, tenant: Tenant, action: str, ended: Status):
    mine = await in_thread(lambda: make_payment(tenant, status=ended, processor=make_processor(tenant)))

    async with api.post(f"/payments/{mine.correlation_id}/{action}") as response:
        assert response.status == 409
