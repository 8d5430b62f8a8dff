"""The sign-up: five steps that can be interrupted, repeated and seen by their founder only."""

import asyncio
import re
from collections.abc import AsyncIterator
from html import unescape
from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model
from limits import RateLimitItemPerDay, RateLimitItemPerHour

from payments.billing import limits
from payments.models import Invitation, Payment, Plan, Processor, SignUp, Subscription
from registry.models import ApiKey, AuditEntry, Membership, Tenant
from tests.conftest import at_work, eventually
from tests.factories import in_thread
from tests.payments.signing_up import PASSWORD, Person


@pytest.fixture(autouse=True)
def _generous(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tests come from one address."""
    monkeypatch.setattr(limits, "SIGN_UPS", RateLimitItemPerHour(100_000))
    monkeypatch.setattr(limits, "CHANGES", RateLimitItemPerHour(100_000))
    monkeypatch.setattr(limits, "EMAILS", RateLimitItemPerDay(100_000))


@pytest.fixture(autouse=True)
async def plans() -> None:
    def make() -> None:
        Plan.objects.all().delete()
        Plan.objects.create(slug="free", name="Free", position=0)
        Plan.objects.create(slug="business", name="Business", price=9900, trial_days=14, position=1)
        Plan.objects.create(slug="gold", name="Gold", price=99900, position=2)

    await in_thread(make)


@pytest.fixture
async def ann(server: str) -> AsyncIterator[Person]:
    async with Person(server) as person:
        yield person


@pytest.fixture
async def bob(server: str) -> AsyncIterator[Person]:
    async with Person(server) as person:
        yield person


# -- The whole way --------------------------------------------------------------------------------------------------


async def test_a_sign_up_without_javascript_ends_in_a_sandbox_that_accepts_payments(ann):
    slug = await ann.begins()
    await ann.goes_to_payment("free")
    await ann.sends(do="start")
    await ann.sends(do="key")
    [key] = re.findall(r"rk_\w+?_[\w-]+", unescape(ann.page))[:1]
    assert ann.headers["Cache-Control"] == "no-store"

    async with at_work():
        headers = {"Authorization": f"Bearer {key}", "Prefer": "wait=9"}
        async with ann.session.post("/payments", json={"amount": "19.90"}, headers=headers) as response:
            paid = await response.json()

    assert (response.status, paid["status"], paid["processor"]) == (200, "succeeded", "default")
    tenant = await in_thread(Tenant.objects.get, slug=slug)
    assert (tenant.mode, tenant.name, tenant.currency) == ("sandbox", "Ann's shop", "BRL")


async def test_the_first_step_makes_tenant_owner_and_sandbox_at_once_and_records_it(ann):
    slug = await ann.begins()

    assert ann.title == "People of Ann's shop"
    tenant = await in_thread(Tenant.objects.get, slug=slug)
    owner = await in_thread(lambda: Membership.objects.select_related("user").get(tenant=tenant))
    assert (owner.role, owner.user.username, owner.user.is_staff) == ("owner", f"{slug}@example.com", False)
    assert await in_thread(lambda: owner.user.check_password(PASSWORD))
    kinds = await in_thread(lambda: sorted(Processor.objects.filter(tenant=tenant).values_list("name", "kind")))
    assert kinds == [("default", "sandbox"), ("fallback", "sandbox")]
    trail = await in_thread(lambda: list(AuditEntry.objects.filter(tenant=tenant).values_list("action", flat=True)))
    assert "tenant.sign_up" in trail


async def test_a_trial_begins_without_a_card_where_billing_is_off(ann):
    slug = await ann.founds("business")
    offered = ann.page
    await ann.sends(do="start")

    assert "takes no cards" in offered
    assert ann.at.endswith("/live")
    found = await in_thread(lambda: Subscription.objects.get(tenant__slug=slug))
    assert (found.status, found.dunning) == ("trialing", "none")
    assert 13 <= (found.trial_end - found.created_at).days <= 14


async def test_a_plan_without_a_trial_requires_a_card(ann):
    await ann.founds("gold")
    await ann.sends(do="start")

    assert ann.errors == ["This plan has no trial. Please choose another one, or pay by card."]
    assert not await in_thread(Subscription.objects.exists)


async def test_a_card_while_billing_is_off_is_refused_with_an_explanation(ann):
    await ann.founds("gold")
    await ann.sends(do="card")

    assert (ann.code, len(ann.errors)) == (422, 1)
    assert ann.errors[0].startswith("This service takes no subscriptions by card")
    assert not await in_thread(Subscription.objects.exists)


# -- Fields ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("slug", "Ann's Shop", "Use lower-case letters, digits and hyphens"),
        ("slug", "", "Use lower-case letters, digits and hyphens"),
        ("slug", "a\0b", "Use lower-case letters, digits and hyphens"),
        ("slug", "admin", "This name is taken"),
        ("name", "", "Say what your business is called"),
        ("name", "x" * 201, "Say what your business is called"),
        ("name", "a\0b", "Say what your business is called"),
        ("currency", "XXQ", "Use a currency's code"),
        ("email", "ann at example", "This is not an e-mail address."),
        ("email", f"{'x' * 200}@example.com", "This is not an e-mail address."),
        ("password", "short", "at least 12 characters"),
        ("password", "password1234", "too common"),
        ("password", "long enough \0 but", "This password cannot be used."),
    ],
    ids=lambda value: str(value)[:12].replace("\0", "0"),
)
async def test_an_invalid_field_is_marked_and_no_input_is_lost(ann, field, value, sentence):
    slug = f"shop-{uuid4().hex[:10]}"
    await ann.opens("/signup")

    await ann.sends(**ann.details(slug, **{field: value}))

    assert ann.code == 422
    assert [error for error in ann.errors if sentence in error]
    assert ("Ann&#x27;s shop" in ann.page) == (field != "name")
    assert PASSWORD not in ann.page
    assert not await in_thread(Tenant.objects.exists)


async def test_a_taken_name_is_reported_and_nothing_is_created(ann, bob):
    slug = await ann.begins()
    await bob.begins(slug, email="bob@example.com")

    assert bob.errors == ["This name is taken. Please choose another one."]
    assert not await in_thread(get_user_model().objects.filter(username="bob@example.com").exists)


async def test_an_address_that_has_an_account_is_asked_to_sign_in(ann, bob):
    slug = await ann.begins()
    await bob.begins(email=f"{slug.upper()}@Example.com")

    assert bob.errors == ["There is an account with this address. Sign in first, then come back here."]


async def test_a_missing_choice_is_reported_beside_the_plans(ann):
    await ann.founds()
    await ann.sends(do="next")

    await ann.sends(plan="platinum")

    assert (ann.code, ann.errors) == (422, ["Please choose one of these plans."])


# -- Again, back, and in two tabs ---------------------------------------------------------------------------------


async def test_the_first_form_sent_twice_at_once_makes_one_tenant(ann):
    await ann.opens("/signup")
    form = {**ann.hidden(), **ann.details("twice-" + uuid4().hex[:8])}

    async def send() -> tuple[int, str]:
        async with ann.session.post("/signup", data=form) as response:
            return response.status, response.url.path

    first, second = await asyncio.gather(send(), send())

    assert first == second
    assert first[0] == 200 and first[1].endswith("/users")
    assert await in_thread(Tenant.objects.count) == 1


async def test_the_first_form_sent_again_with_another_password_is_refused(ann, bob):
    await ann.opens("/signup")
    form = {**ann.hidden(), **ann.details("again-" + uuid4().hex[:8])}
    await ann.sends(**form)
    await bob.opens("/signup")

    await bob.sends(
        **{**form, "csrfmiddlewaretoken": bob.hidden()["csrfmiddlewaretoken"], "password": "another long one"}
    )

    assert bob.errors == ["This sign-up belongs to another person. Please start again."]


async def test_every_later_form_may_be_sent_twice(ann):
    slug = await ann.begins()
    users = ann.at
    for path, form in (
        (users, {"do": "next"}),
        (users.replace("users", "plan"), {"plan": "business"}),
        (users.replace("users", "payment"), {"do": "start"}),
    ):
        await ann.opens(path)
        await ann.sends(path, **form)
        await ann.sends(path, **form)
        assert ann.code == 200

    assert await in_thread(Subscription.objects.filter(tenant__slug=slug).count) == 1
    assert await in_thread(AuditEntry.objects.filter(action="subscription.begin").count) == 1


async def test_going_back_changes_the_plan_and_loses_nothing(ann):
    slug = await ann.founds("business")
    await ann.opens(ann.at.replace("payment", "plan"))
    assert re.search(r'value="business" checked', ann.page)

    await ann.sends(plan="free")
    await ann.sends(do="start")

    found = await in_thread(lambda: Subscription.objects.select_related("plan").get(tenant__slug=slug))
    assert (found.plan.slug, found.status) == ("free", "active")


async def test_the_name_may_be_changed_on_the_way_back_and_the_slug_stays(ann):
    slug = await ann.founds()
    await ann.opens(ann.at.replace("users", "details"))

    await ann.sends(name="Ann & Co", slug="other")

    assert ann.title == "People of Ann &amp; Co" or ann.title == "People of Ann & Co"
    assert await in_thread(lambda: Tenant.objects.get().slug) == slug


async def test_a_later_step_redirects_to_the_current_one(ann):
    await ann.founds()

    await ann.opens(ann.at.replace("users", "live"))

    assert ann.at.endswith("/users")


# -- After a pause, and by others -------------------------------------------------------------------------------------


async def test_a_sign_up_can_be_continued_in_another_browser(ann, bob):
    slug = await ann.founds("business")
    await bob.opens("/login")
    await bob.sends("/login", username=f"{slug}@example.com", password=PASSWORD, next="/signup")

    assert bob.at.endswith("/payment")


STEPS = ("details", "users", "plan", "payment", "paid", "live")


async def test_a_sign_up_cannot_be_seen_by_others(ann, bob):
    await ann.founds("free")
    await ann.sends(do="start")
    await bob.founds()
    form = {**bob.hidden(), "do": "live", "name": "mine", "plan": "gold", "email": "bob@example.com", "role": "owner"}

    codes = await of_all_steps(bob, ann.at, form)

    assert codes == dict.fromkeys(STEPS, (404, 404))
    assert await in_thread(lambda: set(Tenant.objects.values_list("name", flat=True))) == {"Ann's shop"}


async def of_all_steps(person: Person, live: str, form: dict[str, str]) -> dict[str, tuple[int, int]]:
    """The answers to a person who opens each step of the sign-up whose last page is `live`, and sends its form."""
    codes = {}
    for step in STEPS:
        await person.opens(live.replace("live", step))
        read = person.code
        await person.sends(live.replace("live", step), **form)
        codes[step] = (read, person.code)
    return codes


def removed(slug: str) -> None:
    Membership.objects.filter(tenant__slug=slug).delete()


def demoted(slug: str) -> None:
    Membership.objects.filter(tenant__slug=slug).update(role="operator")


def suspended(slug: str) -> None:
    Tenant.objects.filter(slug=slug).update(status=Tenant.Status.SUSPENDED)


@pytest.mark.parametrize("change", [removed, demoted, suspended], ids=lambda change: change.__name__)
async def test_a_founder_who_owns_the_tenant_no_longer_finds_no_step_of_its_sign_up(ann, change):
    slug = await ann.founds("free")
    await ann.sends(do="start")
    live, token = ann.at, ann.hidden()
    await in_thread(change, slug)

    form = {**token, "do": "key", "name": "Mine", "email": "me@x.example", "role": "owner"}
    codes = await of_all_steps(ann, live, form)

    assert codes == dict.fromkeys(STEPS, (404, 404))
    assert not await in_thread(ApiKey.objects.exists) and not await in_thread(Invitation.objects.exists)


async def test_a_removed_founder_starts_a_new_sign_up(ann):
    slug = await ann.founds()
    await in_thread(removed, slug)

    await ann.opens("/signup")

    assert (ann.code, ann.at) == (200, "/signup")


async def test_without_signing_in_a_sign_up_leads_to_the_login(ann, bob):
    await ann.founds()

    await bob.opens(ann.at)

    assert bob.at == "/login"


async def test_a_signed_in_user_creates_a_tenant_without_a_second_account(ann, server):
    first = await ann.begins()
    await ann.opens("/signup?new")
    slug = f"second-{uuid4().hex[:8]}"
    await ann.sends("/signup", slug=slug, name="Second", currency="EUR")

    assert ann.title == "People of Second"
    assert await in_thread(get_user_model().objects.count) == 1
    owners = await in_thread(lambda: set(Membership.objects.values_list("tenant__slug", "user__username")))
    assert owners == {(first, f"{first}@example.com"), (slug, f"{first}@example.com")}


async def test_the_login_leads_to_the_sign_up(ann):
    assert 'href="/signup"' in await ann.opens("/login")


async def test_sign_up_can_be_disabled(ann, settings):
    settings.SIGN_UP = False

    await ann.opens("/signup")

    assert (ann.code, ann.title) == (403, "Sign-up is closed")


async def test_an_address_with_too_many_tries_must_wait(ann, monkeypatch):
    monkeypatch.setattr(limits, "SIGN_UPS", RateLimitItemPerHour(2, namespace=uuid4().hex))
    codes = []
    for _ in range(3):
        await ann.begins(password="short")
        codes.append(ann.code)

    assert codes == [422, 422, 429]
    assert ann.errors == ["At most 2 per 1 hour. Please try again in 60 minutes."]
    assert 3590 < int(ann.headers["Retry-After"]) <= 3600


# -- Invitations --------------------------------------------------------------------------------------------------------


async def invited(ann: Person, email: str, role: str = "operator") -> str:
    """The path behind the link that Ann was shown."""
    await ann.sends(do="invite", email=email, role=role)
    return unescape(re.findall(r"/invitation/[^<\"]+", ann.page)[-1])


async def test_an_invited_person_chooses_a_password_and_becomes_a_member(ann, bob):
    slug = await ann.founds()
    path = await invited(ann, "Bob@example.com", "viewer")
    await bob.opens(path)

    await bob.sends(password=PASSWORD)

    assert (bob.code, bob.at) == (200, "/")
    member = await in_thread(
        lambda: Membership.objects.select_related("tenant", "user").get(user__email="bob@example.com")
    )
    assert (member.tenant.slug, member.role) == (slug, "viewer")


async def test_an_invitation_can_be_accepted_once(ann, bob, server):
    await ann.founds()
    path = await invited(ann, "bob@example.com")
    await bob.opens(path)
    form = {**bob.hidden(), "password": PASSWORD}

    async def come_in() -> int:
        async with bob.session.post(path, data=form) as response:
            return response.status

    codes = await asyncio.gather(*(come_in() for _ in range(4)))

    assert sorted(codes)[0] == 200 and codes.count(200) == 1, codes
    assert await in_thread(Membership.objects.filter(user__email="bob@example.com").count) == 1
    async with Person(server) as late:
        await late.opens(path)
        assert late.code == 404


@pytest.mark.parametrize("damage", ["forged", "old", "withdrawn"])
async def test_a_forged_expired_or_withdrawn_invitation_is_refused(ann, bob, damage):
    await ann.founds()
    path = await invited(ann, "bob@example.com")
    if damage == "forged":
        path = path[:-2] + ("AA" if not path.endswith("AA") else "BB")
    elif damage == "old":
        await in_thread(lambda: Invitation.objects.update(created_at="2026-01-01T00:00Z"))
    else:
        number = await in_thread(lambda: Invitation.objects.get().pk)
        await ann.sends(do="withdraw", invitation=str(number))

    await bob.opens(path)

    assert (bob.code, bob.title) == (404, "Invitation not valid")


async def test_an_invitation_is_for_its_address(ann, bob):
    await ann.founds()
    path = await invited(ann, "carol@example.com")
    await bob.founds()
    await bob.opens(path)

    await bob.sends()

    assert bob.errors == ["This invitation is for carol@example.com. Sign out first, if that is you."]
    assert await in_thread(Membership.objects.count) == 2


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"email": "nobody", "role": "viewer"}, "This is not an e-mail address."),
        ({"email": "bob@example.com", "role": "king"}, "A role is one of owner, operator, viewer."),
    ],
    ids=["address", "role"],
)
async def test_an_invalid_invitation_is_reported_beside_its_field(ann, fields, sentence):
    await ann.founds()

    await ann.sends(do="invite", **fields)

    assert (ann.code, ann.errors) == (422, [sentence])


async def test_a_repeated_invitation_replaces_the_role(ann):
    await ann.founds()
    await invited(ann, "bob@example.com", "viewer")
    await invited(ann, "BOB@example.com", "owner")

    found = await in_thread(lambda: list(Invitation.objects.values_list("email", "role")))
    assert found == [("bob@example.com", "owner")]


async def test_a_renewed_invitation_ends_the_link_before(ann, bob):
    await ann.founds()
    first = await invited(ann, "bob@example.com", "viewer")
    renewed = await invited(ann, "bob@example.com", "viewer")

    await bob.opens(first)
    assert (first != renewed, bob.code, bob.title) == (True, 404, "Invitation not valid")
    await bob.opens(renewed)
    assert bob.code == 200


async def test_emails_are_sent_if_there_is_a_mail_server(ann, settings, mailoutbox):
    settings.EMAIL_URL = "smtp://localhost"
    await ann.founds()
    path = await invited(ann, "bob@example.com")

    [letter] = await eventually(lambda: mailoutbox)

    assert letter.to == ["bob@example.com"]
    assert path.partition(":")[0] in letter.body  # the rest is signed with the time


async def test_a_tenant_sends_a_limited_number_of_emails_a_day(ann, settings, mailoutbox, monkeypatch):
    settings.EMAIL_URL = "smtp://localhost"
    monkeypatch.setattr(limits, "EMAILS", RateLimitItemPerDay(2, namespace=uuid4().hex))
    await ann.founds()
    for name in ("bob", "carol", "dave"):
        await ann.sends(do="invite", email=f"{name}@example.com", role="viewer")

    assert (ann.code, ann.errors) == (422, ["At most 2 per 1 day. Please try again in 24 hours."])
    assert [letter.to for letter in mailoutbox] == [["bob@example.com"], ["carol@example.com"]]
    assert not await in_thread(Invitation.objects.filter(email="dave@example.com").exists)


async def test_without_a_mail_server_no_emails_are_counted(ann, monkeypatch):
    monkeypatch.setattr(limits, "EMAILS", RateLimitItemPerDay(0, namespace=uuid4().hex))
    await ann.founds()

    await invited(ann, "bob@example.com")

    assert await in_thread(Invitation.objects.count) == 1


async def test_no_plan_is_sold_with_a_number_of_payments(ann):
    await ann.founds()

    await ann.sends(do="next")

    assert ann.page.count("Unlimited payments") == 3


async def test_nothing_of_a_sign_up_is_left_when_it_fails_halfway(ann, monkeypatch):
    async def no_processor(**_: object) -> None:
        raise RuntimeError("the power went out")

    monkeypatch.setattr("payments.billing.signup.accounts.add", no_processor)
    await ann.begins()

    assert ann.code == 500
    for model in (Tenant, SignUp, Payment, get_user_model()):
        assert not await in_thread(model.objects.exists)
