"""Going live: failed checks are named with instructions, and a tenant goes live only if all pass."""

import re
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from payments.billing import readiness
from payments.billing.errors import NotReady
from payments.models import Difference, Payment, Plan, Processor, Subscription
from payments.models.billing import Dunning, Paid
from registry.data import database
from registry.models import AuditEntry, Membership, Tenant
from tests.bed.stripe import sandbox_stripe
from tests.factories import in_thread, make_payment, make_person, make_processor
from tests.payments.test_signup import Person
from tests.queueing.test_console import As, visiting  # noqa: F401 - a fixture

EVERYTHING = {"owner", "plan", "processor", "keys", "secrets", "differences", "books"}


async def missing(tenant: Tenant) -> dict[str, str]:
    """What is missing, with what to do."""
    async with database.own_connection():
        return {check.name: check.detail for check in await readiness.look(tenant) if not check.ok}


async def go_live(tenant: Tenant, actor: str = "olga") -> bool:
    async with database.own_connection():
        return await readiness.go_live(tenant=tenant, actor=actor)


async def mode(tenant: Tenant) -> str:
    return (await in_thread(Tenant.objects.get, pk=tenant.pk)).mode


@pytest.fixture
async def ready(tenant: Tenant, default: Any) -> Tenant:
    """A tenant that lacks nothing: an owner, a plan, and a processor of kind http that answers."""

    def make() -> None:
        make_person("olga", tenant=tenant, role="owner", password="a long and quiet word")
        plan = Plan.objects.create(slug=f"plan-{tenant.pk}", name="Business", price=9900)
        Subscription.objects.create(tenant=tenant, plan=plan, status=Paid.ACTIVE)

    await in_thread(make)
    return tenant


async def test_a_tenant_that_passes_all_checks_goes_live_once_and_it_is_recorded(ready):
    first, second = await go_live(ready), await go_live(ready)

    assert (first, second, await mode(ready)) == (True, False, "live")
    entry = await in_thread(lambda: AuditEntry.objects.get(action="tenant.live"))
    assert (entry.actor, entry.tenant_id) == ("olga", ready.pk)


async def test_sandbox_processors_are_disabled_when_going_live(ready):
    await in_thread(make_processor, ready, "toy")

    await go_live(ready)

    enabled = await in_thread(lambda: dict(Processor.objects.values_list("name", "enabled")))
    assert enabled == {"default": True, "toy": False}


def no_owner(tenant: Tenant, default: Any) -> None:
    Membership.objects.filter(tenant=tenant).update(role="operator")


def no_password(tenant: Tenant, default: Any) -> None:
    user = Membership.objects.get(tenant=tenant).user
    user.set_unusable_password()
    user.save()


def no_plan(tenant: Tenant, default: Any) -> None:
    Subscription.objects.all().delete()


def unpaid(tenant: Tenant, default: Any) -> None:
    Subscription.objects.update(status=Paid.UNPAID, dunning=Dunning.SUSPENDED)


def no_processor(tenant: Tenant, default: Any) -> None:
    Processor.objects.update(kind="sandbox")


def switched_off(tenant: Tenant, default: Any) -> None:
    Processor.objects.update(enabled=False)


def failing(tenant: Tenant, default: Any) -> None:
    default.lookups_answer(500)


def gone(tenant: Tenant, default: Any) -> None:
    Processor.objects.update(url="http://127.0.0.1:1")


def different(tenant: Tenant, default: Any) -> None:
    processor = Processor.objects.get()
    when = processor.created_at
    Difference.objects.create(tenant=tenant, processor=processor, kind="amount", key="x", requested_at=when)


def played(tenant: Tenant, default: Any) -> None:
    make_payment(tenant)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (no_owner, {"owner"}),
        (no_password, {"owner"}),
        (no_plan, {"plan"}),
        (unpaid, {"plan"}),
        (no_processor, {"processor", "keys"}),
        (switched_off, {"processor", "keys"}),
        (failing, {"keys"}),
        (gone, {"keys"}),
        (different, {"differences"}),
        (played, {"books"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_failed_checks_are_named_and_the_tenant_stays_in_the_sandbox(ready, default, spoil, named):
    await in_thread(spoil, ready, default)

    found = await missing(ready)
    with pytest.raises(NotReady) as refused:
        await go_live(ready)

    assert set(found) == named
    assert {error["field"] for error in refused.value.errors} == named
    assert all(says in refused.value.detail for says in found.values())
    assert await mode(ready) == "sandbox"


def test_every_check_has_its_test():
    assert {name for name, _, _ in readiness.CHECKS} == EVERYTHING


@pytest.fixture
async def with_stripe(ready: Tenant) -> Any:
    """The same, with a Stripe account besides."""
    from payments.routing import accounts

    async with sandbox_stripe() as stripe, database.own_connection():
        options = {"secretKey": stripe.secret_key, "webhookSecret": "whsec_bed"}
        await accounts.add(tenant=ready, name="stripe", kind="stripe", actor="olga", url=stripe.url, options=options)
        yield stripe


async def test_keys_of_stripe_are_tested(ready, with_stripe):
    assert await missing(ready) == {}


async def test_a_key_unknown_to_stripe_is_reported(ready, with_stripe):
    with_stripe.sandbox.secret_key = "sk_test_another"

    assert await missing(ready) == {"keys": "stripe refuses its key"}


async def test_an_account_without_a_webhook_secret_is_reported(ready, with_stripe):
    from payments.routing import accounts

    def forget() -> None:
        processor = Processor.objects.get(name="stripe")
        processor.secrets = accounts.sealed(processor, {"secretKey": with_stripe.secret_key})
        processor.save()

    await in_thread(forget)

    assert set(await missing(ready)) == {"secrets"}


async def test_keys_that_cannot_be_decrypted_are_reported_with_instructions(ready, with_stripe):
    await in_thread(Processor.objects.filter(name="stripe").update, secrets=b"sealed with another key altogether")

    found = await missing(ready)

    assert set(found) == {"keys", "secrets"}
    assert "SECRET_KEY_FALLBACKS" in found["secrets"]


async def test_an_account_whose_key_cannot_be_decrypted_is_not_enabled_in_production(ready, with_stripe, settings):
    settings.PRODUCTION = True
    await in_thread(Processor.objects.filter(name="stripe").update, secrets=b"sealed with another key altogether")

    async with database.own_connection():
        off = await readiness._disable_sandbox_processors(ready)

    assert off == ["stripe"]


async def test_the_sandbox_is_emptied_in_the_settings_only_where_a_reason_is_asked_for(ready, server):
    await in_thread(make_payment, ready)
    async with Person(server) as olga:
        await olga.opens("/login")
        await olga.sends("/login", username="olga", password="a long and quiet word", next="/")
        address = f"/plan?tenant={ready.slug}"
        await olga.opens(address)
        offered = f'href="/settings?tenant={ready.slug}">Empty the sandbox</a>' in olga.page
        await olga.sends(address, do="empty")

    assert (offered, olga.code, await in_thread(Payment.objects.filter(tenant=ready).count)) == (True, 404, 1)


# -- The button and the command call the same ----------------------------------------------------------------------------


async def test_the_command_refuses_with_all_failed_checks(ready, default):
    await in_thread(no_owner, ready, default)
    await in_thread(no_plan, ready, default)

    with pytest.raises(CommandError) as refused:
        await in_thread(call_command, "tenant", "live", ready.slug)

    assert "add an owner who has a password" in str(refused.value)
    assert "choose a plan" in str(refused.value)


async def test_the_command_makes_the_tenant_live(ready, capsys):
    await in_thread(call_command, "tenant", "live", ready.slug, "--json")

    assert await mode(ready) == "live"


async def test_the_page_shows_failed_checks_and_goes_live_when_there_are_none(ready, default, server):
    await in_thread(no_plan, ready, default)
    plan = await in_thread(Plan.objects.get)
    async with Person(server) as olga:
        await olga.opens("/login")
        await olga.sends("/login", username="olga", password="a long and quiet word", next="/")
        address = f"/plan?tenant={ready.slug}"
        await olga.opens(address)
        await olga.sends(address, do="live")
        refused, listed = olga.code, "choose a plan" in olga.page
        await in_thread(lambda: Subscription.objects.create(tenant=ready, plan=plan, status=Paid.ACTIVE))
        await olga.sends(address, do="live")

    assert (refused, listed) == (409, True)
    assert await mode(ready) == "live"


# -- On the pages ------------------------------------------------------------------------------------------------


async def test_the_plans_page_leads_to_where_each_missing_check_is_mended(visiting: As, tenant: Tenant):  # noqa: F811
    owner = await in_thread(lambda: make_person(tenant=tenant, role="owner", password="a long and quiet word"))
    async with visiting(owner) as visit:
        _, page = await visit.get("/plan")

    assert f'href="/processors?add=stripe&amp;tenant={tenant.slug}">Add a processor</a>' in page
    assert re.search(r'value="live" disabled aria-describedby="golive-why"', page)
    assert "the 2 checks above that are missing are done" in page


async def test_live_can_be_pressed_once_nothing_is_missing(visiting: As, ready):  # noqa: F811
    owner = await in_thread(lambda: Membership.objects.get(tenant=ready, role="owner").user)
    async with visiting(owner) as visit:
        _, page = await visit.get("/plan")

    assert re.search(r'value="live">Go live', page)
