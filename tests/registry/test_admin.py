"""The admin: who may see which rows, confirmed actions with a reason, lists with bounded cost."""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import aiohttp
import pytest
from django.contrib import admin
from django.contrib.messages import get_messages
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from payments.models import DeadLetter, Endpoint, Payment, Processor
from payments.settle import dead_letters
from payments.states import FAILED, LOOKS, QUEUED, SUCCEEDED, UNCERTAIN, Status
from queueing.models import Worker
from registry.data.loop import sync_twin
from registry.models import ApiKey, AuditEntry, Flag, Membership, Tenant
from registry.operators.sections import OTHER
from registry.tenants import keys
from tests.factories import in_thread, make_dead_letter, make_payment, make_person, make_processor, make_tenant

WHY = "the provider confirmed the outage"


@pytest.fixture
def acme():
    return make_tenant("acme")


@pytest.fixture
def other():
    return make_tenant("other")


@pytest.fixture
def operator():
    return as_person(make_person("olga"))


def as_person(person) -> Client:
    client = Client()
    client.force_login(person)
    return client


def listing(model) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def page(row) -> str:
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])


def text(response) -> str:
    """As a person reads it: a place where a line may break is nothing."""
    return response.content.decode().replace("<wbr>", "")


def choose(client: Client, action: str, *rows):
    """Ask for an action on rows of the list: the page that asks why."""
    return client.post(listing(type(rows[0])), {"action": action, "_selected_action": [row.pk for row in rows]})


def confirm(client: Client, asked, reason: str = WHY, **changed):
    """Post the page's own form back, with a reason."""
    fields: dict[str, list[str]] = {"reason": [reason]}
    for tag in re.findall(r'<input type="hidden"[^>]*>', text(asked)):
        found = dict(re.findall(r'(name|value)="([^"]*)"', tag))
        fields.setdefault(found["name"], []).append(found["value"])
    fields.update({name: [str(value)] for name, value in changed.items()})
    return client.post(asked.request["PATH_INFO"], fields)


def tenant_of(row) -> int | None:
    return row.pk if isinstance(row, Tenant) else row.tenant_id


def said(response) -> str:
    return " ".join(str(message) for message in get_messages(response.wsgi_request))


def issue(tenant, **fields) -> tuple[ApiKey, str]:
    given = {"scopes": ["read"], "actor": "test", **fields}
    return sync_twin(keys.issue)(tenant=tenant, **given)


# -- Guarded actions ---------------------------------------------------------------------------------


def test_an_action_shows_its_name_and_the_number_of_rows_before_it_runs(operator, acme):
    first, second = make_processor(acme), make_processor(acme, "fallback", enabled=False)

    asked = choose(operator, "processor_disable", first, second)

    assert "Disable: send nothing new" in text(asked)
    assert "<li>default of acme</li>" in text(asked)
    assert "<strong>1</strong> processor will be changed" in text(asked)
    assert "1 of the selected" in text(asked)
    assert Processor.objects.get(pk=first.pk).enabled
    assert not AuditEntry.objects.exists()


def test_an_action_without_a_reason_does_not_run(operator, acme):
    processor = make_processor(acme)

    answer = confirm(operator, choose(operator, "processor_disable", processor), reason="  ")

    assert "This field is required" in text(answer)
    assert Processor.objects.get(pk=processor.pk).enabled


def test_an_action_with_a_reason_runs_and_is_recorded(operator, acme):
    processor = make_processor(acme)

    answer = confirm(operator, choose(operator, "processor_disable", processor))

    entry = AuditEntry.objects.get()
    assert answer.status_code == 302
    assert not Processor.objects.get(pk=processor.pk).enabled
    assert (entry.actor, entry.action, entry.rows, entry.reason) == ("olga", "processor.disable", 1, WHY)
    assert (entry.tenant, entry.target) == (acme, "processor default")


def test_an_action_over_two_tenants_is_recorded_in_both(operator, acme, other):
    confirm(operator, choose(operator, "processor_disable", make_processor(acme), make_processor(other)))

    assert {(entry.tenant.slug, entry.rows) for entry in AuditEntry.objects.all()} == {("acme", 1), ("other", 1)}


def test_an_action_asks_again_when_the_number_of_rows_changed(operator, acme):
    rows = [make_processor(acme), make_processor(acme, "fallback")]
    asked = choose(operator, "processor_disable", *rows)
    Processor.objects.filter(pk=rows[0].pk).update(enabled=False)

    again = confirm(operator, asked)

    assert "You saw 2 rows, now there are 1" in text(again)
    assert WHY in text(again)
    assert Processor.objects.get(pk=rows[1].pk).enabled
    confirm(operator, again)
    assert not Processor.objects.get(pk=rows[1].pk).enabled


def test_a_race_lost_between_the_count_and_the_update_is_reported(operator, acme, monkeypatch):
    letter = make_dead_letter(make_payment(acme, status=FAILED))
    asked = choose(operator, "deadletter_close", letter)

    close = dead_letters.close

    async def somebody_else_is_faster(**given):
        await DeadLetter.async_objects.filter(pk=letter.pk).aupdate(resolution="closed", resolved_by="pete")
        return await close(**given)

    monkeypatch.setattr(dead_letters, "close", somebody_else_is_faster)
    answer = confirm(operator, asked)

    assert "1 not done: another operator or a worker" in said(answer)


def test_an_action_on_rows_in_the_wrong_state_is_explained(operator, acme):
    answer = choose(operator, "processor_enable", make_processor(acme))

    assert answer.status_code == 302
    assert "Nothing was changed" in said(answer)


def test_no_row_is_enabled_where_one_of_them_may_not_be(operator, acme, settings):
    """A test processor of a live tenant: the commands and the console refuse it too."""
    settings.PRODUCTION = True
    acme.mode = "live"
    acme.save()
    rows = [
        make_processor(acme, "bank", kind="http", url="https://bank.example", enabled=False),
        make_processor(acme, "toy", enabled=False),
    ]

    answer = confirm(operator, choose(operator, "processor_enable", *rows))

    assert "toy of acme: kind sandbox moves no money" in said(answer)
    assert not Processor.objects.filter(enabled=True).exists()
    assert not AuditEntry.objects.exists()
    confirm(operator, choose(operator, "processor_enable", rows[0]))
    assert [one.name for one in Processor.objects.filter(enabled=True)] == ["bank"]


def test_an_action_works_from_the_rows_own_page_too(operator, acme):
    processor = make_processor(acme)
    fields = {"CHANGE_FORM-action": "processor_disable", "_selected_action": processor.pk}

    confirm(operator, operator.post(page(processor), fields))

    assert not Processor.objects.get(pk=processor.pk).enabled


def test_nothing_can_be_deleted_in_the_admin(operator, acme):
    payment = make_payment(acme)
    letter = make_dead_letter(payment)
    for row in (acme, payment, letter, make_processor(acme)):
        url = page(row).replace("/change/", "/delete/")
        assert operator.post(url, {"post": "yes"}).status_code == 403
        assert "delete_selected" not in text(operator.get(listing(type(row))))


def test_every_action_of_the_admin_requires_a_reason():
    for model, site in admin.site._registry.items():
        if model._meta.app_label in ("registry", "queueing", "payments"):
            for action in site.actions or []:
                assert action.allowed_permissions == ["act"], action


async def confirm_on(server: str, model, action: str, row) -> str:
    """Ask for an action and confirm it through the server; the list with its messages."""
    olga = await in_thread(lambda: as_person(make_person("olga")))
    cookies = {"sessionid": olga.cookies["sessionid"].value}
    url = server + listing(model)

    jar = aiohttp.CookieJar(unsafe=True)  # cookies of a bare address too
    async with aiohttp.ClientSession(cookies=cookies, cookie_jar=jar) as browser:
        async with browser.get(url) as answer:
            token = re.search(r'csrfmiddlewaretoken" value="(\w+)"', await answer.text())
        form = {"action": action, "_selected_action": row.pk, "csrfmiddlewaretoken": token[1]}
        async with browser.post(url, data=form) as answer:
            assert "will be changed" in await answer.text()
        async with browser.post(url, data={**form, "seen": 1, "reason": WHY}) as answer:
            return await answer.text()


async def test_an_action_works_through_the_server_on_its_own_loop(server, acme):
    """In the other tests each action has a loop to itself; here it shares the server's, and its pool."""
    letter = await in_thread(lambda: make_dead_letter(make_payment(acme, status=FAILED)))

    assert "Replay: done." in await confirm_on(server, DeadLetter, "deadletter_replay", letter)

    assert (await in_thread(Payment.objects.get)).status == QUEUED


async def test_an_action_that_needs_a_thread_works_through_the_server_too(server, acme):
    page = await confirm_on(server, Tenant, "tenant_payment_inline", acme)

    assert "done." in page
    assert await in_thread(lambda: list(Flag.objects.get(name="inline.payment").tenants.all())) == [acme]


# -- Dead letters ------------------------------------------------------------------------------------


def test_dead_letters_are_replayed_with_a_reason(operator, acme):
    failed, doubtful = make_payment(acme, status=FAILED), make_payment(acme, status=UNCERTAIN)
    letters = [make_dead_letter(failed), make_dead_letter(doubtful)]

    answer = confirm(operator, choose(operator, "deadletter_replay", *letters))

    assert "Replay: done for 2." in said(answer)
    assert Payment.objects.get(pk=failed.pk).status == QUEUED
    assert Payment.objects.get(pk=doubtful.pk).status == UNCERTAIN
    assert [e.reason for e in AuditEntry.objects.filter(action="deadletter.replay")] == [WHY, WHY]


def test_the_list_of_dead_letters_shows_open_ones_with_their_payments_state(operator, acme):
    make_dead_letter(make_payment(acme, status=FAILED), detail="open one")
    make_dead_letter(make_payment(acme, status=SUCCEEDED), detail="old one", resolution="replayed")

    seen = text(operator.get(listing(DeadLetter)))

    assert "open one" in seen
    assert "old one" not in seen
    assert "failed</span>" in seen
    assert "old one" in text(operator.get(listing(DeadLetter), {"resolution": "all"}))


# -- Breakers and processors -----------------------------------------------------------------------------


def test_a_breaker_is_opened_and_closed_by_hand(operator):
    endpoint = Endpoint.objects.create(key="http:http://127.0.0.1:8001", failures=3)

    confirm(operator, choose(operator, "endpoint_open", endpoint))
    endpoint.refresh_from_db()
    assert endpoint.breaker == "open"

    confirm(operator, choose(operator, "endpoint_close", endpoint))
    endpoint.refresh_from_db()
    assert (endpoint.breaker, endpoint.failures) == ("closed", 0)
    assert set(AuditEntry.objects.values_list("action", flat=True)) == {"endpoint.open", "endpoint.close"}


def test_processors_are_listed_with_breaker_health_and_trend(operator, acme):
    processor = make_processor(acme)
    Endpoint.objects.create(
        key=processor.endpoint,
        breaker="open",
        failing=True,
        min_response_ms=120,
        trend_ms=341,
        polled_at=timezone.now(),
    )

    seen = text(operator.get(listing(Processor)))

    assert "breaker open" in seen
    assert "failing, reported minimum 120 ms" in seen
    assert "341 ms" in seen


def test_a_processor_on_a_private_network_needs_no_dot_in_its_name(operator, acme):
    make_processor(acme, kind="sandbox")
    row = Processor.objects.get()

    operator.post(page(row), {"url": "http://processor-default:8080", "fee": "0.05", "reason": WHY})
    assert Processor.objects.get().url == "http://processor-default:8080"

    bad = operator.post(page(row), {"url": "file:///etc/passwd", "fee": "0.05", "reason": WHY})
    assert "not an http address" in text(bad)


def test_the_audit_entry_of_a_change_names_its_fields_with_old_and_new_values(operator, acme):
    row = make_processor(acme)

    operator.post(page(row), {"url": "", "fee": "0.07", "option_delay": "300", "reason": WHY})

    entry = AuditEntry.objects.get()
    assert (entry.action, entry.reason, entry.tenant) == ("processor.change", WHY, acme)
    assert entry.detail == {"fee": ["0.050000", "0.07"], "option_delay": [None, 300]}
    assert Processor.objects.get().options == {"delay": 300}


# -- Keys and tenants --------------------------------------------------------------------------------------


def test_a_new_key_is_shown_once_and_works(operator, acme):
    answer = operator.post(
        reverse("admin:registry_apikey_add"),
        {"tenant": acme.pk, "name": "till", "scopes": ["read", "write"], "rate_limit": "100/second", "reason": WHY},
    )

    key = ApiKey.objects.get()
    shown = re.search(r"rk_\w+?_[\w-]+", said(answer))
    assert shown is not None
    assert shown[0].startswith(f"rk_{key.prefix}_")
    assert (key.tenant, key.scopes, key.rate_limit, key.name) == (acme, ["read", "write"], "100/second", "till")
    assert AuditEntry.objects.get().action == "apikey.issue"
    secret = shown[0].split("_", 2)[2]
    operator.get(listing(ApiKey))  # shows the message
    assert secret not in text(operator.get(listing(ApiKey))) + text(operator.get(page(key)))


def test_a_key_is_revoked_once_with_a_reason(operator, acme):
    key, _ = issue(acme)

    confirm(operator, choose(operator, "apikey_revoke", key))
    again = choose(operator, "apikey_revoke", key)

    assert ApiKey.objects.get().revoked_at is not None
    assert AuditEntry.objects.get(action="apikey.revoke").reason == WHY
    assert "Nothing was changed" in said(again)


def test_a_tenant_is_suspended_and_resumed(operator, acme):
    confirm(operator, choose(operator, "tenant_suspend", acme))
    assert Tenant.objects.get().status == "suspended"

    confirm(operator, choose(operator, "tenant_resume", acme))
    assert Tenant.objects.get().status == "active"


def test_a_tenants_page_links_to_what_belongs_to_it(operator, acme):
    make_processor(acme)
    issue(acme)

    seen = text(operator.get(listing(Tenant)))

    assert '<a href="/admin/payments/processor/?tenant=acme">1 processor</a>' in seen
    assert '<a href="/admin/registry/apikey/?tenant=acme">1 key</a>' in seen


def test_the_mode_of_a_tenant_cannot_be_changed(operator, acme):
    operator.post(page(acme), {"name": "Acme", "mode": "live", "currency": "brl", "settings": "{}", "reason": WHY})

    changed = Tenant.objects.get()
    assert (changed.name, changed.mode, changed.currency) == ("Acme", "sandbox", "BRL")


def test_the_patience_of_a_tenant_is_shown_and_edited_on_its_page(operator, acme):
    fields = {"name": "Acme", "currency": "BRL", "settings": "{}", "reason": WHY}

    shown = text(operator.get(page(acme)))
    operator.post(page(acme), {**fields, "patience": "1500"})
    edited = Tenant.objects.get().patience
    refused = text(operator.post(page(acme), {**fields, "patience": "60001"}))
    operator.post(page(acme), {**fields, "patience": ""})

    assert 'name="patience" value="300"' in shown
    assert (edited, Tenant.objects.get().patience) == (1500, 1500)
    assert "less than or equal to 60000" in refused


# -- Payments ----------------------------------------------------------------------------------------------


def test_a_payments_page_has_its_whole_history(operator, acme):
    payment = make_payment(acme, status=SUCCEEDED, processor=make_processor(acme))

    seen = text(operator.get(page(payment)))

    assert "cheapest healthy" in seen  # why that processor
    assert "owed to the tenant" in seen  # ledger
    assert "19.90 BRL" in seen
    assert f"/payments/{payment.correlation_id}/live?token=" in seen
    assert "do not add up" not in seen
    assert 'name="_save"' not in seen


def test_a_payments_page_warns_of_an_unbalanced_ledger(operator, acme):
    payment = make_payment(acme, status=SUCCEEDED, processor=make_processor(acme))
    connection.cursor().execute("DELETE FROM payments_ledgerentry WHERE account = 'fees'")

    assert "do not add up to zero" in text(operator.get(page(payment)))


def test_payments_are_found_by_correlation_id_in_all_tenants(operator, acme, other):
    payment = make_payment(other)
    make_payment(acme)

    found = operator.get(listing(Payment), {"q": str(payment.correlation_id)}).context["cl"].result_list
    none = operator.get(listing(Payment), {"q": str(uuid4())}).context["cl"].result_list
    words = operator.get(listing(Payment), {"q": "espresso"})

    assert ([row.pk for row in found], list(none)) == ([payment.pk], [])
    assert "whole correlation id" in text(words)


@pytest.mark.parametrize("status", list(Status))
def test_payments_are_filtered_by_every_status_and_shown_by_shape_and_word(operator, acme, status):
    for each in Status:
        make_payment(acme, status=each)

    answer = operator.get(listing(Payment), {"status": status.value})

    assert [row.status for row in answer.context["cl"].result_list] == [status]
    look = LOOKS[status]
    assert f'<span class="pill pill-{look.colour}"><span aria-hidden="true">{look.shape}</span>' in text(answer)


def test_the_list_of_payments_keeps_to_one_tenant_and_never_counts_to_the_end(operator, acme, other):
    make_payment(acme)
    make_payment(other)

    second = operator.get(listing(Payment), {"tenant": "other"}).context["cl"]
    with CaptureQueriesContext(connection) as queries:
        first = operator.get(listing(Payment)).context["cl"]

    assert [row.tenant for row in first.result_list] == [acme]
    assert [row.tenant for row in second.result_list] == [other]
    counts = [q["sql"] for q in queries if "COUNT(" in q["sql"] and "payments_payment" in q["sql"]]
    assert len(counts) == 1
    assert "LIMIT 5000" in counts[0]


def test_a_list_that_times_out_asks_for_a_narrower_filter(operator, acme, monkeypatch):
    monkeypatch.setattr("registry.operators.lists.LOOK_LIMIT", 0.05)
    monkeypatch.setattr("payments.admin.lists.StatusFilter.queryset", lambda *_: slow())

    def slow():
        return Payment.objects.extra(where=["pg_sleep(1) IS NULL"])

    make_payment(acme)
    answer = operator.get(listing(Payment), {"status": "failed"})

    assert (answer.status_code, answer.url) == (302, listing(Payment))
    assert "Choose a shorter time" in said(answer)


def test_every_list_costs_as_many_queries_for_many_rows_as_for_one(operator, acme):
    lists = [m for m in admin.site._registry if m._meta.app_label in ("registry", "payments", "queueing")]

    def more():
        processor = make_processor(acme, f"p{Processor.objects.count()}")
        payment = make_payment(acme, status=SUCCEEDED, processor=processor)
        make_dead_letter(payment)
        make_tenant()
        make_person(tenant=acme)
        issue(acme)
        Endpoint.objects.create(key=processor.endpoint)
        Worker.objects.create(queue="payments", hostname="host", pid=1)

    def costs() -> dict[str, int]:
        found = {}
        for model in lists:
            with CaptureQueriesContext(connection) as queries:
                assert operator.get(listing(model)).status_code == 200
            found[model.__name__] = len(queries)
        return found

    more()
    one = costs()
    for _ in range(3):
        more()

    assert costs() == one


def test_apps_have_no_page_of_their_own(operator):
    assert operator.get("/admin/payments/").url == reverse("admin:index")


def test_every_page_names_its_section_and_what_one_comes_for():
    unnamed = [
        m.__name__ for m, site in admin.site._registry.items() if not (site.purpose and site.section is not OTHER)
    ]

    assert unnamed == []


def test_no_page_holds_inline_style_or_script(operator, acme):
    payment = make_payment(acme, status=SUCCEEDED, processor=make_processor(acme))
    letter = make_dead_letter(payment)
    pages = [operator.get(listing(model)) for model in admin.site._registry]
    pages += [operator.get(page(payment)), operator.get(page(letter)), choose(operator, "deadletter_close", letter)]
    for answer in pages:
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=\"|<script(?![^>]*\ssrc=)", text(answer)), answer.request
        assert "unsafe" not in answer.headers["Content-Security-Policy"]


# -- Who sees what -------------------------------------------------------------------------------------------


def test_members_of_staff_see_the_rows_of_their_tenants_only(acme, other):
    mine, theirs = make_payment(acme, status=FAILED), make_payment(other, status=FAILED)
    letters = [make_dead_letter(mine), make_dead_letter(theirs)]
    make_processor(other, "secret-name")
    issue(other, name="secret-key")
    member = as_person(make_person(tenant=acme, role="owner"))

    assert member.get(page(mine)).status_code == 200
    assert member.get(page(theirs)).status_code == 302  # as for a row that never was
    assert [row.pk for row in member.get(listing(DeadLetter)).context["cl"].result_list] == [letters[0].pk]
    for model in (Tenant, ApiKey, Membership, AuditEntry, Payment, Processor, DeadLetter):
        for query in ({}, {"tenant": "other"}, {"q": str(theirs.correlation_id)}, {"q": "other"}):
            answer = member.get(listing(model), query, follow=True)
            rows = answer.context["cl"].result_list
            assert {tenant_of(row) for row in rows} <= {acme.pk}, (model, query)
            assert "secret-" not in text(answer)


def test_members_cannot_act_on_rows_of_others_by_naming_them(acme, other):
    letter = make_dead_letter(make_payment(other, status=FAILED))
    member = as_person(make_person(tenant=acme, role="owner"))

    answer = choose(member, "deadletter_replay", letter)

    assert "Nothing was changed" in said(answer)
    letter.refresh_from_db()
    assert letter.resolution == ""


def test_viewers_see_rows_and_cannot_run_actions(acme):
    letter = make_dead_letter(make_payment(acme, status=FAILED))
    viewer = as_person(make_person(tenant=acme, role="viewer"))

    assert viewer.get(page(letter)).status_code == 200
    assert "deadletter_replay" not in text(viewer.get(listing(DeadLetter)))
    choose(viewer, "deadletter_replay", letter)
    letter.refresh_from_db()
    assert letter.resolution == ""


def test_an_operator_of_one_tenant_and_viewer_of_another_runs_actions_in_the_first_only(acme, other):
    person = make_person(tenant=acme, role="operator")
    Membership.objects.create(tenant=other, user=person, role="viewer")
    letters = [make_dead_letter(make_payment(tenant, status=FAILED)) for tenant in (acme, other)]

    member = as_person(person)
    confirm(member, choose(member, "deadletter_close", *letters))

    assert list(DeadLetter.objects.order_by("id").values_list("resolution", flat=True)) == ["closed", ""]


def test_owners_create_keys_and_memberships_of_their_own_tenant_only(acme, other):
    stranger = make_person(tenant=other)
    owner = as_person(make_person(tenant=acme, role="owner"))
    form = {"name": "", "scopes": ["read"], "rate_limit": "", "reason": WHY}

    owner.post(reverse("admin:registry_apikey_add"), {**form, "tenant": other.pk})
    owner.post(
        reverse("admin:registry_membership_add"),
        {"tenant": acme.pk, "user": stranger.pk, "role": "owner", "reason": WHY},
    )
    assert not ApiKey.objects.exists()
    assert not Membership.objects.filter(tenant=acme, user=stranger).exists()

    owner.post(reverse("admin:registry_apikey_add"), {**form, "tenant": acme.pk})
    assert ApiKey.objects.get().tenant == acme


def test_operators_neither_make_keys_nor_change_memberships(acme):
    operator = as_person(make_person(tenant=acme, role="operator"))

    assert operator.get(reverse("admin:registry_apikey_add")).status_code == 403
    assert operator.get(reverse("admin:registry_membership_add")).status_code == 403


@pytest.mark.parametrize("model", [Endpoint, Worker])
def test_settings_shared_by_all_tenants_are_for_superusers(acme, model):
    Worker.objects.create(queue="payments", hostname="host", pid=1)

    assert as_person(make_person(tenant=acme, role="owner")).get(listing(model)).status_code == 403


def test_a_processor_has_a_field_for_each_option_of_its_kind(operator, acme):
    sandbox = text(operator.get(page(make_processor(acme, options={"delay": 300}))))
    stripe = text(operator.get(page(make_processor(acme, "cards", kind="stripe"))))
    new = text(operator.get(reverse("admin:payments_processor_add")))

    assert 'name="option_delay" value="300"' in sandbox
    assert "option_publishableKey" not in sandbox
    assert "option_publishableKey" in stripe
    assert "option_delay" not in stripe
    assert {"option_delay", "option_publishableKey", "option_onlyByName"} <= set(
        re.findall(r'name="(option_\w+)"', new)
    )
    assert not re.search(r'name="options"', sandbox + stripe + new)


def test_an_option_of_another_kind_and_a_value_out_of_range_are_refused(operator, acme):
    given = {"tenant": acme.pk, "name": "new", "kind": "sandbox", "url": "", "fee": "0.05", "reason": WHY}

    other = operator.post(reverse("admin:payments_processor_add"), {**given, "option_capture": "manual"})
    large = operator.post(reverse("admin:payments_processor_add"), {**given, "option_decline": "1.5"})

    assert "Kind sandbox has no such option." in text(other)
    assert "less than or equal to 1" in text(large)
    assert not Processor.objects.exists()


def test_a_change_keeps_the_options_that_have_no_field_and_removes_those_that_were_emptied(operator, acme):
    row = make_processor(acme, options={"token": "s3cret", "delay": 300, "failing": True})

    shown = text(operator.get(page(row)))
    operator.post(page(row), {"url": "", "fee": "0.05", "option_delay": "", "option_hang": "on", "reason": WHY})

    assert "token" in shown and "s3cret" not in shown
    assert Processor.objects.get().options == {"token": "s3cret", "hang": True}


def test_a_processors_options_are_not_shown_to_members(acme):
    processor = make_processor(acme, options={"token": "s3cret"})

    assert "s3cret" not in text(as_person(make_person(tenant=acme, role="owner")).get(page(processor)))


# -- Workers, audit trail ------------------------------------------------------------------------------------


def test_workers_are_alive_or_silent(operator):
    Worker.objects.create(queue="payments", hostname="here", pid=1)
    Worker.objects.create(queue="payments", hostname="gone", pid=2, heartbeat_at=timezone.now() - timedelta(minutes=3))

    seen = text(operator.get(listing(Worker), {"alive": "no"}))

    assert "silent for 3 min" in seen
    assert "gone" in seen
    assert ">here<" not in seen


def test_the_audit_trail_can_be_read_and_not_written(operator, acme):
    entry = AuditEntry.objects.create(actor="olga", action="tenant.suspend", target="tenant acme", tenant=acme)

    assert operator.get(page(entry)).status_code == 200
    assert operator.post(page(entry), {"actor": "nobody"}).status_code == 403
    assert operator.get(reverse("admin:registry_auditentry_add")).status_code == 403


def test_a_removed_member_no_longer_sees_the_tenant(operator, acme):
    person = make_person(tenant=acme)
    membership = Membership.objects.get(user=person)

    confirm(operator, choose(operator, "membership_remove", membership))

    assert not Membership.objects.exists()
    assert AuditEntry.objects.get().action == "membership.remove"
    assert as_person(person).get(listing(Payment)).status_code == 403


def test_the_last_owner_who_can_sign_in_is_neither_removed_nor_demoted(operator, acme):
    person = make_person(tenant=acme, role="owner")
    make_person(tenant=acme, role="owner", is_active=False)
    membership = Membership.objects.get(user=person)

    removed = confirm(operator, choose(operator, "membership_remove", membership))
    demoted = operator.post(page(membership), {"role": "viewer", "reason": WHY})

    assert "needs an owner who can sign in" in said(removed)
    assert "needs an owner who can sign in" in text(demoted)
    assert Membership.objects.get(user=person).role == "owner"
    assert not AuditEntry.objects.exists()


def test_two_owners_who_demote_each_other_at_the_same_time_leave_one(operator, acme):
    first, second = (Membership.objects.get(user=make_person(tenant=acme, role="owner")) for _ in range(2))

    def demote() -> int:
        try:
            return operator.post(page(second), {"role": "viewer", "reason": WHY}).status_code
        finally:
            connection.close()  # of this thread

    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic():
            Membership.objects.filter(pk=first.pk).update(role="viewer")
            answer = threads.submit(demote)
            while not answer.done() and not waits_for_us():
                time.sleep(0.01)
        assert answer.result() == 200  # the form, with the reason

    assert Membership.objects.filter(tenant=acme, role="owner").count() == 1


def waits_for_us() -> bool:
    """Whether another connection waits for what this transaction has locked."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid)))"
        )
        return cursor.fetchone()[0]
