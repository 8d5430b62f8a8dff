"""docs/developers/going-live.md: the checks on the page are those of the product, and what changes is so."""

import re
from pathlib import Path

import pytest
from django.urls import resolve

from payments.billing import readiness
from tests.conftest import Api, make_key
from tests.factories import in_thread, make_processor, make_tenant

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "developers"
PAGE = (FOLDER / "going-live.md").read_text()


def test_the_checks_on_the_page_are_those_that_go_live_makes():
    written = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", PAGE, re.M)

    assert written == [(name, label) for name, label, _ in readiness.CHECKS]


def test_where_a_failed_check_is_mended_is_on_the_page_as_in_the_console():
    for name, (path, _) in readiness.PAGES.items():
        [where] = re.findall(rf"^\| `{name}` \|.*\| ([^|]+) \|$", PAGE, re.M)

        assert path.partition("?")[0] in where or "processor's page" in where, (name, where)


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.md")), ids=lambda file: file.name)
def test_every_page_of_the_console_that_is_named_exists(file: Path):
    for path in re.findall(r"`(/(?!payments|refunds|api)[a-z/-]+)`", file.read_text()):
        resolve(path)


async def test_payments_of_a_live_tenant_without_a_processor_wait(server: str):
    tenant = await in_thread(make_tenant, "shop", mode="live")
    await in_thread(make_processor, tenant, "toy", enabled=False)

    async with Api(server, await make_key(tenant)) as api:
        made = await api.pay()

        assert (await api.status(made["correlationId"]))["status"] == "queued"


@pytest.mark.parametrize(("mode", "status"), [("sandbox", 202), ("live", 422)])
async def test_a_live_tenant_leads_payers_back_by_https_only(mode: str, status: int, server: str):
    tenant = await in_thread(make_tenant, "shop", mode=mode)

    async with Api(server, await make_key(tenant)) as api:
        async with api.post("/payments", json={"amount": 1, "returnUrl": "http://shop.example/orders/1"}) as response:
            assert response.status == status
