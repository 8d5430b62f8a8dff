"""The home page over HTTP: what needs attention, by role; figures of the chosen range; the sentence of each processor."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from django.utils import timezone

from payments.models import Endpoint, Plan, Processor, Subscription
from payments.models.billing import Dunning, Paid
from payments.pages import home
from payments.routing.takers import none_takes_payments
from registry.models import Membership, Tenant
from registry.operators import attention
from registry.operators.attention import Severity
from tests.factories import in_thread, make_api_key, make_person, make_processor, make_tenant
from tests.history import make_history
from tests.queueing.test_console import session_of
from tests.settling import accept, configure


@pytest.fixture(autouse=True)
def current(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every view reads its figures anew."""
    for cache in (home.presents, home.pasts, home.needs):
        monkeypatch.setattr(cache, "fresh", 0.0)
        monkeypatch.setattr(cache, "stale", 0.0)


@pytest.fixture
async def tenant(settings: Any) -> Tenant:
    """Open to guests."""
    tenant = await in_thread(make_tenant, f"shop-{uuid4().hex[:12]}", open=True)
    settings.REGISTRY_OPEN_TENANT = tenant.slug
    return tenant


async def look(server: str, tenant: Tenant, role: str = "", **query: str) -> str:
    """The home page as a guest, or as a member with this role, sees it."""
    session = await in_thread(lambda: session_of(make_person(tenant=tenant, role=role))) if role else ""
    cookies = {"sessionid": session} if session else {}
    async with aiohttp.ClientSession(server, cookie_jar=aiohttp.CookieJar(unsafe=True), cookies=cookies) as browser:
        async with browser.get("/", params={"tenant": tenant.slug, **query}) as response:
            assert response.status == 200
            return await response.text()


def part(page: str, identifier: str) -> str:
    """The text of an element, without markup."""
    found = re.search(rf'<(\w+)[^>]* id="{identifier}".*?</\1>', page, re.DOTALL)
    assert found, identifier
    return " ".join(re.sub(r"<[^>]+>", " ", found[0]).split())


# -- No processor takes payments -----------------------------------------------------------------------------


async def nobody(tenant: Tenant) -> list[str]:
    return [item.sentence for item in await none_takes_payments([tenant.pk])]


async def test_a_tenant_without_a_processor_is_told_what_happens_to_its_payments(server, tenant):
    await accept(tenant, 2)

    page = await look(server, tenant, "owner")

    sentence = "No processor takes payments: there is none. Payments are accepted and stay queued. 2 payments wait."
    assert sentence in part(page, "attention")
    assert f'<a href="/processors?tenant={tenant.slug}">Add a processor</a>' in page


async def test_a_processor_that_is_used_only_by_name_takes_no_payment_that_names_none(server, tenant):
    await in_thread(make_processor, tenant, "stripe", options={"onlyByName": True})

    assert await nobody(tenant) == [
        "No processor takes payments: stripe is sent only payments that name it. Payments are accepted and stay queued."
    ]
    page = await look(server, tenant, "viewer")
    assert "by name only" in part(page, "processor-stripe")
    assert "Only payments that ask for it by name are sent to it." in part(page, "processor-stripe")
    assert "working" not in part(page, "processor-stripe")


async def test_processors_that_are_switched_off_or_down_take_no_payments(tenant):
    for name in ("default", "fallback"):
        await in_thread(make_processor, tenant, name)
    assert await nobody(tenant) == []

    await in_thread(lambda: trip(tenant, "default"))
    assert await nobody(tenant) == []
    await in_thread(lambda: trip(tenant, "fallback"))
    [down] = await nobody(tenant)
    await in_thread(lambda: Processor.objects.filter(tenant=tenant).update(enabled=False))
    [off] = await nobody(tenant)

    assert "default and fallback have their breakers open or report that they fail" in down
    assert "default and fallback are switched off" in off


async def test_one_processor_that_works_is_enough_whatever_the_others_do(tenant):
    await in_thread(make_processor, tenant, "stripe", options={"onlyByName": True})
    await in_thread(make_processor, tenant, "off", enabled=False)
    await in_thread(make_processor, tenant, "default")
    other = await in_thread(make_tenant)

    assert await nobody(tenant) == []
    assert len(await nobody(other)) == 1
    assert await none_takes_payments(None) == []


def trip(tenant: Tenant, name: str, breaker: str = "open", **fields: Any) -> None:
    key = Processor.objects.get(tenant=tenant, name=name).endpoint
    Endpoint.objects.update_or_create(key=key, defaults={"breaker": breaker, **fields})


async def test_an_open_breaker_says_when_it_is_probed_next_and_not_that_everything_is_booked(server, tenant):
    await in_thread(make_processor, tenant, "default")
    await in_thread(lambda: trip(tenant, "default", breaker_changed_at=timezone.now()))

    page = await look(server, tenant, "operator")

    assert "not working" in part(page, "processor-default")
    assert re.search(
        r"payments go to other processors or wait\. .* Next probe: within [3456] s\.", part(page, "processor-default")
    )
    assert "It books every payment at once" not in page
    assert "its breaker closes once a probe has succeeded" in page

    await in_thread(lambda: trip(tenant, "default", breaker_changed_at=timezone.now() - timedelta(minutes=5)))
    assert "Next probe: the next payment." in part(await look(server, tenant, "operator"), "processor-default")

    await in_thread(lambda: trip(tenant, "default", breaker="closed", failing=True))
    page = await look(server, tenant, "operator")
    assert "It reports that it is failing. Payments go to other processors" in part(page, "processor-default")


# -- The merchant's other sources ----------------------------------------------------------------------------


async def items_of(tenant: Tenant, name: str) -> list[attention.Item]:
    return [item for item in await attention.items([tenant.pk]) if item.name == name]


async def test_a_key_that_expires_soon_is_named_until_it_is_revoked_or_has_expired(tenant):
    now = datetime.now(UTC)
    other = await in_thread(make_tenant)
    for of, name, expires_at in (
        (tenant, "later", now + timedelta(days=30)),
        (tenant, "never", None),
        (tenant, "soon", now + timedelta(days=5)),
        (tenant, "now", now + timedelta(hours=3)),
        (other, "other", now + timedelta(days=5)),
    ):
        await in_thread(make_api_key, of, name=name, expires_at=expires_at)

    found = await items_of(tenant, "keys.expiring")
    everybody = [item for item in await attention.items(None) if item.name == "keys.expiring"]

    assert [re.search("“(.*)”", item.sentence)[1] for item in found] == ["now", "soon"]  # type: ignore[index]
    assert [item.severity for item in found] == [Severity.WARNING, Severity.NOTICE]
    assert len(everybody) == 3


def make_plan() -> Plan:
    return Plan.objects.create(slug="business", name="Business", price=9900, offered=True)


@pytest.mark.parametrize(
    ("mode", "status", "dunning", "severity"),
    [
        ("live", Paid.ACTIVE, Dunning.NONE, None),
        ("live", Paid.PAST_DUE, Dunning.NOTICE, Severity.WARNING),
        ("live", Paid.PAST_DUE, Dunning.REFUSED, Severity.CRITICAL),
        ("sandbox", Paid.UNPAID, Dunning.SUSPENDED, None),
    ],
)
async def test_a_plan_that_is_not_paid_needs_attention(tenant, mode, status, dunning, severity):
    def make() -> None:
        Tenant.objects.filter(pk=tenant.pk).update(mode=mode)
        Subscription.objects.create(tenant=tenant, plan=make_plan(), status=status, dunning=dunning)

    await in_thread(make)

    found = await items_of(tenant, "plan.unpaid")

    assert [item.severity for item in found] == ([] if severity is None else [severity])
    assert {item.page for item in found} <= {"/plan"}


async def test_checks_before_going_live_are_one_notice_until_none_is_missing(settings):
    settings.REGISTRY_OPEN_TENANT = ""
    tenant, plan = await in_thread(make_tenant), await in_thread(make_plan)

    [missing] = await items_of(tenant, "plan.go_live")

    def pass_all() -> None:
        person = make_person(tenant=tenant, role="owner")
        person.set_password("correct horse battery")
        person.save()
        Subscription.objects.create(tenant=tenant, plan=plan, status=Paid.ACTIVE)
        make_processor(tenant, "default", kind="http", url="http://127.0.0.1:9")

    await in_thread(pass_all)
    assert missing.count == 3
    assert "this is missing: an owner with a password, a plan, paid for or on trial, a processor" in missing.sentence
    assert missing.severity == Severity.NOTICE
    assert await items_of(tenant, "plan.go_live") == []
    await in_thread(lambda: Membership.objects.filter(tenant=tenant).update(role="viewer"))
    [again] = await items_of(tenant, "plan.go_live")
    assert "this is missing: an owner with a password" in again.sentence


async def test_neither_an_open_demo_nor_a_live_tenant_is_told_to_go_live(tenant):
    live = await in_thread(make_tenant, mode="live")

    assert await items_of(tenant, "plan.go_live") == await items_of(live, "plan.go_live") == []


# -- Who sees what -------------------------------------------------------------------------------------------


async def test_a_guest_sees_neither_the_balance_nor_what_only_members_may_see(server, tenant):
    await in_thread(make_api_key, tenant, name="theirs", expires_at=timezone.now() + timedelta(days=1))

    guest, member = await look(server, tenant), await look(server, tenant, "viewer")

    assert "theirs" in part(member, "attention")
    assert "Balance" in part(member, "balance")
    assert "theirs" not in guest
    assert "/balance" not in guest
    assert "No processor takes payments" in part(guest, "attention")
    assert "Add a processor" not in guest  # a page for members
    assert "Time to settle" in part(guest, "times")


async def test_more_items_than_fit_are_behind_a_link(server, tenant):
    for n in range(6):
        await in_thread(make_api_key, tenant, name=f"key {n}", expires_at=timezone.now() + timedelta(days=1 + n))

    some, every = await look(server, tenant, "owner"), await look(server, tenant, "owner", attention="all")

    assert some.count("“key") == 3  # and that there is no processor
    assert ">3 more<" in some
    assert every.count("“key") == 6


async def test_only_members_see_the_balance_page(server, tenant):
    async with aiohttp.ClientSession(server) as browser, browser.get("/balance", allow_redirects=False) as response:
        assert response.status == 302
        assert response.headers["Location"].startswith("/login")


# -- Ranges --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "amount", "rate"),
    [("1h", "R$10.00", "50 %"), ("24h", "R$30.00", "60 %"), ("", "R$10.00", "50 %"), ("7d", "R$60.00", "66.6 %"), ("30d", "R$100.00", "71.4 %"), ("9y", "R$10.00", "50 %")],
)  # fmt: skip
async def test_the_range_in_the_address_is_shown(server, tenant, key, amount, rate):
    processor = await in_thread(make_processor, tenant, "default")
    now = datetime.now(UTC)
    for count, age in enumerate((timedelta(minutes=5), timedelta(hours=3), timedelta(days=3), timedelta(days=20)), 1):
        await in_thread(make_history, processor, now - age, succeeded=count, failed=1, amount=1000)

    page = await look(server, tenant, "viewer", **({"range": key} if key else {}))

    assert amount in part(page, "volume")
    assert rate in part(page, "success")


async def test_a_live_tenant_sees_its_last_day_first(server, tenant):
    await in_thread(lambda: Tenant.objects.filter(pk=tenant.pk).update(mode="live"))

    assert "Volume, last 24 h" in part(await look(server, tenant, "viewer"), "volume")


async def test_amounts_of_other_currencies_stand_beside_the_tenants_own(server, tenant):
    processor = await in_thread(make_processor, tenant, "default")
    for currency, count in (("USD", 5), ("BRL", 2)):
        await in_thread(make_history, processor, datetime.now(UTC), succeeded=count, amount=1000, currency=currency)

    page = await look(server, tenant, "viewer")

    assert "R$20.00 2 payments, $50.00 (5)" in part(page, "volume")


async def test_unfinished_payments_are_split_into_due_and_retrying(server, tenant):
    await in_thread(make_processor, tenant, "default")
    await configure(tenant, "default", enabled=False)
    await accept(tenant, 3)

    assert re.search(r"Unfinished 3 oldest .* 3 due", part(await look(server, tenant, "viewer"), "unfinished"))


async def test_a_queue_that_is_too_long_to_count_says_so(server, tenant, monkeypatch):
    monkeypatch.setattr("payments.books.figures.COUNTED", 2)
    await in_thread(make_processor, tenant, "default")
    await configure(tenant, "default", enabled=False)
    await accept(tenant, 3)

    shown = part(await look(server, tenant, "viewer"), "unfinished")
    assert re.search(r"Unfinished 2 or more oldest .* 2 due, of the first 10,000", shown)
