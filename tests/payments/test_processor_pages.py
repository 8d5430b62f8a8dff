"""A merchant's pages of processors: add, change, keys, test call, on and off, and the simulation of routing."""

import json
import re

import pytest

from payments.models import Processor
from payments.processors.http import HttpProcessor
from payments.routing import accounts
from payments.routing.dry_run import digest, rules_of
from payments.routing.pages.processors import LONGEST_PAUSE
from registry.models import AuditEntry, Tenant
from tests.conftest import Api
from tests.factories import in_thread, make_person, make_processor, make_stripe, make_tenant
from tests.queueing.test_console import As, visiting  # noqa: F401 - a fixture
from tests.settling import settle_all

KEY, HOOK = "sk_test_4eC39HqLyjWDarjtT1zdp7dc", "whsec_c2VjcmV0"
STRIPE = {"kind": "stripe", "name": "cards", "fee": "3.9", "secret_key": KEY, "webhook_secret": HOOK, "capture": ""}


async def person(tenant: Tenant, role: str = "owner"):
    return await in_thread(lambda: make_person(tenant=tenant, role=role))


async def stored(tenant: Tenant, name: str) -> Processor:
    return await Processor.async_objects.aget(tenant=tenant, name=name)


# -- Adding ---------------------------------------------------------------------------------------------------


async def test_an_owner_adds_stripe_and_its_keys_are_sealed_and_never_shown(visiting: As, tenant: Tenant):  # noqa: F811
    async with visiting(await person(tenant)) as visit:
        assert (await visit.post("/processors", **STRIPE))[0] == 302
        _, page = await visit.get("/processors/cards")

    cards = await stored(tenant, "cards")
    assert (cards.kind, str(cards.fee), cards.options) == ("stripe", "0.039000", {})
    assert accounts.opened(cards) == {"secretKey": KEY, "webhookSecrets": [HOOK]}
    assert KEY not in page
    assert HOOK not in page
    assert f"/webhooks/stripe/{tenant.slug}.cards" in page
    entry = await AuditEntry.async_objects.aget(action="processor.add", tenant_id=tenant.pk)
    assert KEY not in str(entry.__dict__)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"secret_key": "4711"}, "secretKey=sk_test_"),
        ({"webhook_secret": "4711"}, "a webhook secret begins with whsec_"),
        ({"name": "ca rds"}, "letters, numbers, underscores or hyphens"),
        ({"name": ""}, "This field is required."),
        ({"fee": "100"}, "less than or equal to 99.9999"),
        ({"fee": "-1"}, "greater than or equal to 0"),
        ({"publishable_key": "sk_test_1"}, "A publishable key begins with pk_test_ or pk_live_."),
    ],
)
async def test_a_wrong_field_is_named_and_nothing_else_is_lost(visiting: As, tenant: Tenant, wrong, said):  # noqa: F811
    async with visiting(await person(tenant)) as visit:
        status, page = await visit.post("/processors", **{**STRIPE, **wrong})

    assert status == 422
    assert said in page
    assert KEY not in page  # an entered key is not sent back either
    assert f'value="{wrong.get("fee", "3.9")}"' in page
    assert not await Processor.async_objects.filter(tenant=tenant).aexists()


async def test_a_name_is_used_once(visiting: As, tenant: Tenant, default):  # noqa: F811
    async with visiting(await person(tenant)) as visit:
        status, page = await visit.post("/processors", kind="sandbox", name="default", fee="5")

    assert (status, "has a processor named default already" in page) == (422, True)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest",
        "http://127.0.0.1:8001",
        "http://10.0.0.7",
        "ftp://pay.example.com",
        "http://[::1]/",
    ],
)
async def test_a_merchant_cannot_make_the_service_call_its_own_network(visiting: As, tenant: Tenant, settings, url):  # noqa: F811
    settings.WEBHOOK_ALLOW_PRIVATE = False
    async with visiting(await person(tenant)) as visit:
        status, page = await visit.post("/processors", kind="http", name="bank", fee="1", url=url)

    assert status == 422
    assert 'id="id_url_error"' in page
    assert not await Processor.async_objects.filter(tenant=tenant).aexists()


async def test_a_name_that_leads_inside_later_is_not_connected_to(tenant: Tenant, settings):
    """The address is looked at again at each connection."""
    settings.WEBHOOK_ALLOW_PRIVATE = False
    bank = await in_thread(
        lambda: make_processor(tenant, "bank", kind="http", url="http://localhost:8001", public_only=True)
    )
    async with HttpProcessor() as http:
        health = await http.health(accounts.account_of(bank, tenant, None))

    assert health is None


async def test_an_operators_processor_inside_becomes_public_only_once_a_merchant_changes_its_address(
    visiting: As,  # noqa: F811
    tenant: Tenant,
):
    await in_thread(lambda: make_processor(tenant, "bank", kind="http", url="http://10.1.2.3:8001"))
    async with visiting(await person(tenant)) as visit:
        same = {"do": "change", "fee": "1", "url": "http://10.1.2.3:8001", "longest_delay": "5"}
        assert (await visit.post("/processors/bank", **same))[0] == 302
        before = await stored(tenant, "bank")
        assert (await visit.post("/processors/bank", **{**same, "url": "http://127.0.0.1:8002"}))[0] == 302
        after = await stored(tenant, "bank")

    assert (before.public_only, before.options) == (False, {"longestDelay": 5})
    assert (after.public_only, after.url) == (True, "http://127.0.0.1:8002")


# -- Changing ---------------------------------------------------------------------------------------------------


async def test_a_changed_fee_changes_the_order_of_routing(visiting: As, tenant: Tenant, default, fallback, api: Api):  # noqa: F811
    async with visiting(await person(tenant)) as visit:
        url = (await stored(tenant, "default")).url
        assert (await visit.post("/processors/default", do="change", fee="40", url=url))[0] == 302
    await api.pay("19.90")
    await settle_all(tenant)

    assert len(fallback.booked) == 1
    entry = await AuditEntry.async_objects.aget(action="processor.change", tenant_id=tenant.pk)
    assert "0.4" in entry.detail["fee"]


async def test_new_keys_replace_the_stored_ones_and_old_webhook_secrets_stay_valid(visiting: As, tenant: Tenant):  # noqa: F811
    async with visiting(await person(tenant)) as visit:
        await visit.post("/processors", **STRIPE)
        assert (await visit.post("/processors/cards", do="keys", webhook_secret="whsec_bmV3"))[0] == 302
        status, page = await visit.post("/processors/cards", do="keys")

    assert accounts.opened(await stored(tenant, "cards")) == {"secretKey": KEY, "webhookSecrets": ["whsec_bmV3", HOOK]}
    assert (status, "Enter at least one key." in page) == (422, True)


async def test_an_operator_switches_a_processor_off_and_on_with_a_reason(visiting: As, tenant: Tenant, default):  # noqa: F811
    async with visiting(await person(tenant, "operator")) as visit:
        status, page = await visit.get("/processors/default", do="disable")
        assert (status, "uncertain payments are still looked up there" in page) == (200, True)
        assert (await visit.post("/processors/default", do="disable", seen="1", reason="maintenance"))[0] == 302
        off = (await stored(tenant, "default")).enabled
        assert (await visit.post("/processors/default", do="enable", seen="1", reason="done"))[0] == 302

    assert (off, (await stored(tenant, "default")).enabled) == (False, True)
    reasons = AuditEntry.async_objects.filter(tenant_id=tenant.pk, action__startswith="processor.").order_by("id")
    assert [entry.reason async for entry in reasons] == ["maintenance", "done"]


# -- Test call and state ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "mood"), [({"failing": True}, "fail"), ({"hang": True}, "hang")])
async def test_a_test_call_at_a_test_processor_says_what_it_is_set_to(visiting: As, tenant: Tenant, options, mood):  # noqa: F811
    await in_thread(lambda: make_processor(tenant, "till", kind="sandbox", url="", options=options))
    async with visiting(await person(tenant, "operator")) as visit:
        await visit.post("/processors/till", do="test")
        _, page = await visit.get("/processors/till")

    assert f"till answers, but is set to {mood} on the home page." in page


async def test_a_test_call_says_whether_the_processor_answers_and_books_nothing(visiting: As, tenant: Tenant, default):  # noqa: F811
    async with visiting(await person(tenant, "operator")) as visit:
        await visit.post("/processors/default", do="test")
        _, well = await visit.get("/processors/default")
        default.lookups_answer(500)
        await visit.post("/processors/default", do="test")
        _, silent = await visit.get("/processors/default")

    assert "default answers. Nothing was booked." in well
    assert "default does not answer." in silent
    assert not default.booked


async def test_a_list_without_a_usable_processor_says_what_happens_to_payments(visiting: As, tenant: Tenant):  # noqa: F811
    await in_thread(lambda: make_processor(tenant, "cards", options={"onlyByName": True}))
    await in_thread(lambda: make_processor(tenant, "old", enabled=False))
    async with visiting(await person(tenant)) as visit:
        _, page = await visit.get("/processors")

    assert "No processor takes payments." in page
    assert re.findall(r"</i>([a-z ]+)</span>", page) == ["by name only", "switched off"]


async def test_an_open_breaker_is_named_with_the_next_probe(visiting: As, tenant: Tenant, default):  # noqa: F811
    await in_thread(trip, await stored(tenant, "default"))
    async with visiting(await person(tenant, "viewer")) as visit:
        _, page = await visit.get("/processors/default")

    assert "not working" in page
    assert f"A single payment probes it, at least every {LONGEST_PAUSE:g} s" in page


def trip(processor: Processor) -> None:
    from payments.models import Endpoint

    Endpoint.objects.update_or_create(key=processor.endpoint, defaults={"breaker": "open"})


# -- Simulating routing ------------------------------------------------------------------------------------------


async def test_rules_are_simulated_and_then_put_in_force_by_an_owner(
    visiting: As,  # noqa: F811
    tenant: Tenant,
    default,
    fallback,
    api: Api,
):
    for _ in range(3):
        await api.pay()
    await settle_all(tenant)
    ids = {one.name: one.pk async for one in Processor.async_objects.filter(tenant=tenant)}
    rules = {f"fee-{ids['default']}": "0.5", f"fee-{ids['fallback']}": "0.15", f"enabled-{ids['fallback']}": "on"}
    rules |= {f"enabled-{ids['default']}": "on", "last": "1000", "dry_run": "1"}
    async with visiting(await person(tenant)) as visit:
        _, page = await visit.post("/routing", **rules)
        assert "Of 3 payments, 3 would go to another processor" in page
        found = dict(re.findall(r'name="(edits|rules)" value="([^"]*)"', page))
        edits = found["edits"].replace("&quot;", '"')
        given = {"activate": "1", "edits": edits, "rules": found["rules"], "reason": "dearer now"}
        assert (await visit.post("/routing", **given))[0] == 302
        assert (await visit.post("/routing", **given))[0] == 422  # the rules have changed since

    assert str((await stored(tenant, "default")).fee) == "0.500000"


# -- Who may what --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["viewer", "operator"])
async def test_only_an_owner_adds_and_changes(visiting: As, tenant: Tenant, default, role):  # noqa: F811
    async with visiting(await person(tenant, role)) as visit:
        assert (await visit.post("/processors", **STRIPE))[0] == 404
        assert (await visit.get("/processors", add="stripe"))[0] == 404
        assert (await visit.post("/processors/default", do="change", fee="1"))[0] == 404
        assert (await visit.post("/processors/default", do="keys", secret_key=KEY))[0] == 404
        _, page = await visit.get("/processors/default")
    assert "Save" not in page


async def test_a_viewer_only_looks(visiting: As, tenant: Tenant, default):  # noqa: F811
    async with visiting(await person(tenant, "viewer")) as visit:
        assert (await visit.get("/processors"))[0] == 200
        for do in ("enable", "disable", "test"):
            assert (await visit.post("/processors/default", do=do, seen="1", reason="x"))[0] == 404
        assert (await visit.get("/routing"))[0] == 404


async def test_processors_of_others_do_not_exist(visiting: As, tenant: Tenant, default):  # noqa: F811
    other = await in_thread(lambda: make_tenant("others"))
    async with visiting(await person(other)) as visit:
        assert (await visit.get("/processors/default"))[0] == 404
        assert (await visit.get("/processors", tenant=tenant.slug))[0] == 404
        assert (await visit.post(f"/processors/default?tenant={tenant.slug}", do="disable", seen="1", reason="x"))[
            0
        ] == 404


# -- Limits of what a merchant may add and switch on ----------------------------------------------------------------


async def test_a_tenant_has_so_many_processors(visiting: As, tenant: Tenant, default, monkeypatch):  # noqa: F811
    """Workers ask each address for its health every few seconds."""
    monkeypatch.setattr(accounts, "PROCESSORS_AT_MOST", 1)
    async with visiting(await person(tenant)) as visit:
        status, page = await visit.post("/processors", kind="sandbox", name="second", fee="5")

    assert (status, "a tenant has at most 1 processor" in page) == (422, True)


@pytest.mark.parametrize(
    ("secrets", "said"),
    [(None, "kind sandbox moves no money"), ({"secretKey": "sk_test_bed"}, "a test key books nothing")],
)
async def test_what_going_live_has_switched_off_is_not_switched_on_again(
    visiting: As,  # noqa: F811
    tenant: Tenant,
    settings,
    secrets,
    said: str,
):
    """Its payments would succeed, and move no money."""
    settings.PRODUCTION = True
    add = make_stripe if secrets else make_processor
    given = {"url": "", "secrets": secrets} if secrets else {}
    played = await in_thread(lambda: add(tenant, name="played", enabled=False, **given))
    await in_thread(lambda: Tenant.objects.filter(pk=tenant.pk).update(mode="live"))
    async with visiting(await person(tenant)) as visit:
        await visit.post("/processors/played", do="enable", seen="1", reason="why not")
        _, page = await visit.get("/processors/played")
        rules = digest(await rules_of(tenant.pk))
        edits = json.dumps({"played.enabled": "true"})
        status, refused = await visit.post("/routing", activate="1", edits=edits, rules=rules, reason="why not")

    live = await Tenant.async_objects.aget(pk=tenant.pk)
    with pytest.raises(accounts.Refused, match=re.escape(said)):  # as the command does it
        await accounts.switch(tenant=live, name="played", enabled=True, actor="root")
    assert said in page
    assert (status, said in refused) == (422, True)
    assert not (await stored(tenant, played.name)).enabled
