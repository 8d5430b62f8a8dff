"""Pages of API keys, request log, team, settings and audit log over HTTP: who may see and do what, and what they never show twice."""

# ruff: noqa: F811 - `visiting` is a fixture of another file

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.db import connection
from django.utils import timezone

from payments.billing import invitations
from payments.books import purge
from payments.models import Invitation, Payment
from payments.states import SUCCEEDED
from queueing.models import Job
from registry.data import database
from registry.models import ApiKey, ApiRequest, AuditEntry, Flag, Membership, Tenant
from registry.tenants import access, api_requests
from tests.conftest import Api, eventually, make_key
from tests.factories import in_thread, make_payment, make_person, make_processor, make_tenant
from tests.queueing.test_console import As, Visit, visiting  # noqa: F401 - a fixture
from tests.queueing.test_jobs import run
from tests.registry.test_request_log import entry

WHY = "the shop asked for it"
ROLES = ("owner", "operator", "viewer")
KEY = re.compile(r"rk_[0-9a-f]{12}_[A-Za-z0-9_-]{43}")
PAGES = {"/developers": ROLES, "/developers/requests": ROLES, "/team": ROLES, "/settings": ROLES, "/audit": ROLES[:2]}


async def person(tenant: Tenant, role: str) -> Any:
    return await in_thread(make_person, tenant=tenant, role=role)


async def key_of(tenant: Tenant, **options: Any) -> ApiKey:
    plain = await make_key(tenant, **options)
    async with database.own_connection():
        return await ApiKey.async_objects.aget(prefix=plain.split("_")[1])


async def actions(tenant: Tenant) -> list[tuple[str, str, str]]:
    async with database.own_connection():
        mine = AuditEntry.async_objects.filter(tenant=tenant).order_by("pk")
        return [(one.action, one.actor, one.reason) async for one in mine]


async def confirmed(visit: Visit, path: str, /, **fields: Any) -> tuple[int, str]:
    """What the confirmation page leads to: it is opened first, and its number of rows is sent with the reason."""
    status, page = await visit.get(path, **fields)
    assert status == 200, page
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
    return await visit.post(path, **{**fields, **hidden, "reason": WHY})


# -- Who may see and do what -------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [*ROLES, "stranger"])
async def test_pages_are_for_members_and_the_audit_log_for_those_who_act(visiting: As, tenant: Tenant, role: str):
    other = await in_thread(make_tenant) if role == "stranger" else tenant
    async with visiting(await person(other, "owner" if role == "stranger" else role)) as visit:
        found = {path: (await visit.get(path, tenant=tenant.slug))[0] for path in PAGES}

    assert found == {path: 200 if role in may else 404 for path, may in PAGES.items()}


async def test_guests_are_asked_to_sign_in(visiting: As):
    async with visiting() as visit:
        for path in PAGES:
            status, place = await visit.get(path)
            assert (status, place.partition("?")[0]) == (302, "/login")


@pytest.mark.parametrize("role", ROLES)
async def test_the_role_decides_over_each_action(visiting: As, tenant: Tenant, role: str):
    key, member = await key_of(tenant), (await person(tenant, "viewer")).memberships
    number = await in_thread(lambda: member.get().pk)
    asked = {
        "/developers?do=revoke": ({"key": key.prefix}, ("owner", "operator")),
        "/developers?do=rotate": ({"key": key.prefix}, ("owner",)),
        "/team?do=role": ({"member": number, "role": "operator"}, ("owner",)),
        "/team?do=remove": ({"member": number}, ("owner",)),
        "/settings?do=purge": ({}, ("owner",)),
        "/settings?do=export": ({}, ("owner",)),
    }
    async with visiting(await person(tenant, role)) as visit:
        for address, (fields, may) in asked.items():
            path, do = address.split("?do=")
            status, _ = await visit.get(path, do=do, **fields)
            assert status == (404 if role not in may else 302 if do == "purge" else 200), address
            status, _ = await visit.post(path, do=do, reason=WHY, seen=1, **fields) if role not in may else (404, "")
            assert status == 404, address
        for path, fields in (
            ("/developers", {"do": "create", "scopes": "read"}),
            ("/team", {"do": "invite", "email": "ada@shop.example", "role": "viewer"}),
            ("/settings", {"do": "save", "name": "Shop", "time_zone": "UTC", "max_amount": ""}),
        ):
            status, _ = await visit.post(path, **fields)
            assert (status != 404) == (role == "owner"), path
        status, _ = await visit.post("/audit", do="verify")
        assert status == (404 if role == "viewer" else 200)


async def test_no_action_reaches_what_belongs_to_another_tenant(visiting: As, tenant: Tenant):
    other = await in_thread(make_tenant)
    theirs, member = await key_of(other), await person(other, "viewer")
    number = await in_thread(lambda: member.memberships.get().pk)
    invitation = await in_thread(lambda: Invitation.objects.create(tenant=other, email="a@b.example", invited_by="x"))
    logged = await logged_request(other, path="/of/theirs")
    async with visiting(await person(tenant, "owner")) as visit:
        for do in ("revoke", "rotate"):
            assert (await visit.get("/developers", do=do, key=theirs.prefix))[0] == 404
            assert (await visit.post("/developers", do=do, key=theirs.prefix, seen=1, reason=WHY))[0] == 404
        for do in ("role", "remove"):
            assert (await visit.get("/team", do=do, member=str(number), role="owner"))[0] == 404
            assert (await visit.post("/team", do=do, member=number, role="owner", seen=1, reason=WHY))[0] == 404
        for do in ("resend", "withdraw"):
            assert (await visit.post("/team", do=do, invitation=invitation.pk))[0] == 404
        assert (await visit.get(f"/developers/requests/{logged.id}"))[0] == 404
        assert logged.path not in (await visit.get("/developers/requests"))[1]

    assert (await key_again(theirs)).revoked_at is None
    assert await actions(other) == []


async def key_again(key: ApiKey) -> ApiKey:
    async with database.own_connection():
        return await ApiKey.async_objects.aget(pk=key.pk)


@pytest.mark.parametrize(
    "path",
    ["/developers?do=revoke&key=%00", "/developers?do=nonsense", "/team?do=role&member=x&role=owner",
     "/team?do=role&member=99999999999999999999&role=owner", "/settings?do=nonsense", "/developers/requests/99999999999999999999",
     "/developers/requests?before=x&status=nonsense", "/audit?from=yesterday&before=99999999999999999999",
     "/audit?from=0001-01-01T00:00%2B14:00", "/developers/requests?to=9999-12-31T23:59-14:00"],
)  # fmt: skip
async def test_what_makes_no_sense_is_no_error_of_the_service(visiting: As, tenant: Tenant, path: str):
    async with visiting(await person(tenant, "owner")) as visit:
        assert (await visit.get(path))[0] in (200, 404)


# -- API keys ------------------------------------------------------------------------------------------------------


def new_key(page: str, **fields: Any) -> dict[str, Any]:
    """The form as the page gave it."""
    prefix = re.search(r'name="prefix" value="([0-9a-f]{12})"', page)
    assert prefix
    return {"do": "create", "prefix": prefix[1], "name": "Shop", "scopes": ["read", "write"], **fields}


async def test_a_new_key_is_shown_once_works_at_once_and_stops_within_a_second(
    visiting: As, tenant: Tenant, server: str
):
    async with visiting(await person(tenant, "owner")) as visit:
        form = new_key((await visit.get("/developers"))[1])
        async with visit.session.post(
            "/developers", data=[("csrfmiddlewaretoken", "a" * 32), *pairs(form)], allow_redirects=False
        ) as response:
            page = await response.text()
            assert (response.status, response.headers["Cache-Control"]) == (200, "no-store")
        [plain] = set(KEY.findall(page))
        async with Api(server, plain) as api, api.get("/payments") as answer:
            assert answer.status == 200
        pages = [await visit.get(path) for path in ("/developers", "/audit", "/developers/requests")]
        reloaded = await visit.post("/developers", **form)
        pages.append(await visit.get("/developers"))
        assert (await confirmed(visit, "/developers", do="revoke", key=form["prefix"]))[0] == 302
        async with Api(server, plain) as api:
            await eventually(lambda: refused(api), within=1.0)

    secret = plain.split("_", 2)[2]
    assert reloaded[0] == 302
    assert secret not in str(pages)
    assert "has made a key already" in pages[-1][1]
    assert [action for action, *_ in await actions(tenant)] == ["apikey.issue", "apikey.revoke"]
    kept = await in_thread(lambda: [str(Session.objects.values()), str(AuditEntry.objects.values())])
    assert secret not in str(kept)
    async with database.own_connection():
        assert await ApiKey.async_objects.filter(tenant=tenant).acount() == 1


def pairs(form: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, one) for name, value in form.items() for one in (value if isinstance(value, list) else [value])]


async def refused(api: Api) -> bool:
    async with api.get("/payments") as answer:
        return answer.status == 401


async def test_a_key_has_the_scopes_expiry_and_rate_limit_of_its_form(visiting: As, tenant: Tenant):
    await in_thread(lambda: Tenant.objects.filter(pk=tenant.pk).update(time_zone="America/Sao_Paulo"))
    async with visiting(await person(tenant, "owner")) as visit:
        form = new_key(
            (await visit.get("/developers"))[1], expires="2031-05-06", rate_limit="5/minute", scopes=["read"]
        )
        assert (await visit.post("/developers", **form))[0] == 200

    async with database.own_connection():
        key = await ApiKey.async_objects.aget(prefix=form["prefix"])
    assert (key.name, key.scopes, key.rate_limit) == ("Shop", ["read"], "5/minute")
    assert key.expires_at == datetime(2031, 5, 7, 3, tzinfo=UTC)  # the end of that day in São Paulo


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("scopes", [], "at least one scope"), ("rate_limit", "often", "such as 100/second"), ("rate_limit", "0/second", "such as"),
        ("expires", "2020-01-01", "is over"), ("expires", "soon", "not a date"), ("expires", "9999-12-31", "too far"),
        ("name", "x" * 101, "at most 100"), ("name", "a\0b", "at most 100"),
    ],
)  # fmt: skip
async def test_a_field_that_is_wrong_says_so_and_makes_no_key(
    visiting: As, tenant: Tenant, field: str, value: Any, said: str
):
    async with visiting(await person(tenant, "owner")) as visit:
        status, page = await visit.post("/developers", **new_key((await visit.get("/developers"))[1], **{field: value}))

    assert status == 422
    assert said in unescape(page)
    assert not KEY.search(page)
    assert await actions(tenant) == []


async def test_a_rotated_key_works_for_its_grace_and_its_successor_is_shown_once(
    visiting: As, tenant: Tenant, server: str
):
    old = await make_key(tenant, "read", name="Shop")
    prefix = old.split("_")[1]
    async with visiting(await person(tenant, "owner")) as visit:
        status, page = await confirmed(visit, "/developers", do="rotate", key=prefix, grace="hour")
        [plain] = set(KEY.findall(page))
        for secret in (old, plain):
            async with Api(server, secret) as api, api.get("/payments") as answer:
                assert answer.status == 200
        assert plain.split("_", 2)[2] not in (await visit.get("/developers"))[1]

    assert status == 200
    async with database.own_connection():
        ending, new = [await ApiKey.async_objects.aget(prefix=one.split("_")[1]) for one in (old, plain)]
    assert timedelta(minutes=59) < ending.expires_at - timezone.now() <= timedelta(hours=1)
    assert (new.name, new.scopes) == ("Shop", ["read"])
    assert (await actions(tenant))[-1][::2] == ("apikey.rotate", WHY)


async def test_the_form_of_a_rotation_that_is_sent_again_makes_no_second_successor(visiting: As, tenant: Tenant):
    key = await key_of(tenant)
    fields = {"do": "rotate", "key": key.prefix, "grace": "day", "seen": 1, "reason": WHY, "successor": "0123456789ab"}
    async with visiting(await person(tenant, "owner")) as visit:
        first, again = await visit.post("/developers", **fields), await visit.post("/developers", **fields)

    assert (first[0], again[0]) == (200, 302)
    async with database.own_connection():
        assert await ApiKey.async_objects.filter(tenant=tenant).acount() == 2


async def test_a_rotation_wants_a_reason_and_a_known_grace(visiting: As, tenant: Tenant):
    key = await key_of(tenant)
    async with visiting(await person(tenant, "owner")) as visit:
        for wrong in ({"reason": ""}, {"grace": "for ever"}):
            fields = {"do": "rotate", "key": key.prefix, "grace": "day", "seen": 1, "reason": WHY, **wrong}
            status, page = await visit.post("/developers", **fields)
            assert status == 422
            assert not KEY.search(page)


# -- Request log -----------------------------------------------------------------------------------------------------


async def logged_request(tenant: Tenant, **fields: Any) -> ApiRequest:
    at = fields.pop("at", None) or timezone.now()
    made = entry(tenant, at.timestamp())._replace(**fields)._asdict()

    def store() -> ApiRequest:
        return ApiRequest.objects.create(at=at, **made)

    return await in_thread(store)


async def paths(visit: Visit, **query: str) -> list[str]:
    _, page = await visit.get(f"/developers/requests?{urlencode(query)}")
    return re.findall(r'title="GET (/[^"]+)"', page)


async def test_requests_are_filtered_by_key_status_path_and_time_in_the_tenants_zone(visiting: As, tenant: Tenant):
    await in_thread(lambda: Tenant.objects.filter(pk=tenant.pk).update(time_zone="America/Sao_Paulo"))
    now = timezone.now()
    hours = [now - timedelta(hours=n) for n in (3, 2, 1)]
    await logged_request(tenant, path="/payments/1", key="aaaaaaaaaaaa", status=200, code="", at=hours[0])
    await logged_request(tenant, path="/jobs/2", key="bbbbbbbbbbbb", status=503, code="unavailable", at=hours[1])
    await logged_request(tenant, path="/payments/3", key="bbbbbbbbbbbb", status=422, code="invalid", at=hours[2])
    between = (
        (now - timedelta(hours=2, minutes=30)).astimezone(ZoneInfo("America/Sao_Paulo")).strftime("%Y-%m-%dT%H:%M")
    )

    async with visiting(await person(tenant, "viewer")) as visit:
        assert await paths(visit) == ["/payments/3", "/jobs/2", "/payments/1"]
        assert await paths(visit, key="bbbbbbbbbbbb") == ["/payments/3", "/jobs/2"]
        assert await paths(visit, status="errors") == ["/payments/3", "/jobs/2"]
        assert await paths(visit, status="5xx") == ["/jobs/2"]
        assert await paths(visit, path="/payments") == ["/payments/3", "/payments/1"]
        assert await paths(visit, **{"from": between}) == ["/payments/3", "/jobs/2"]
        assert await paths(visit, to=between) == ["/payments/1"]
        assert await paths(visit, **{"from": "yesterday"}) == []


async def test_requests_are_paged_without_gaps(visiting: As, tenant: Tenant, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("registry.operators.pages.requests.ROWS", 2)
    for n in range(5):
        await logged_request(tenant, path=f"/payments/{n}", at=timezone.now() - timedelta(minutes=n))
    seen: list[str] = []
    async with visiting(await person(tenant, "viewer")) as visit:
        address = "/developers/requests"
        while address:
            _, page = await visit.get(address)
            seen += re.findall(r'title="GET (/[^"]+)"', page)
            older = re.search(r'href="([^"]+before=[^"]+)">Older', page)
            address = unescape(older[1]) if older else ""

    assert seen == [f"/payments/{n}" for n in range(5)]


async def test_a_page_looks_through_so_many_entries_and_offers_to_go_on(
    visiting: As, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(api_requests, "SEARCHED", 3)
    for n in range(5):
        await logged_request(tenant, path=f"/{'rare' if n == 4 else 'other'}", at=timezone.now() - timedelta(minutes=n))
    async with visiting(await person(tenant, "viewer")) as visit:
        _, page = await visit.get("/developers/requests?path=/rare")
        assert "None of the newest 3 requests matches" in page
        older = re.search(r'href="([^"]+)">Search older ones', page)
        assert older
        _, page = await visit.get(unescape(older[1]))

    assert 'title="GET /rare"' in page


async def test_the_page_of_a_request_shows_what_is_known(visiting: As, tenant: Tenant):
    key = await key_of(tenant, name="Shop")
    found = await logged_request(
        tenant, key=key.prefix, status=422, code="invalid", request_id="req-1234567", duration=12_345
    )
    async with visiting(await person(tenant, "viewer")) as visit:
        status, page = await visit.get(f"/developers/requests/{found.id}")

    assert status == 200
    for text in ("GET /payments", "422", "invalid", "12.3 ms", "Shop", key.prefix, "req-1234567"):
        assert text in page


async def test_an_entry_that_should_be_removed_already_is_not_listed(visiting: As, tenant: Tenant):
    await logged_request(tenant, at=timezone.now() - timedelta(days=7, minutes=1))
    async with visiting(await person(tenant, "viewer")) as visit:
        assert await paths(visit) == []


# -- Team ------------------------------------------------------------------------------------------------------------


async def role_of(who: Any, tenant: Tenant) -> str | None:
    async with database.own_connection():
        found = await Membership.async_objects.filter(tenant=tenant, user_id=who.pk).afirst()
        return found.role if found else None


async def number_of(who: Any) -> str:
    return str(await in_thread(lambda: who.memberships.get().pk))


async def test_an_owner_changes_a_role_and_removes_a_member_with_a_reason(visiting: As, tenant: Tenant):
    owner, member = await person(tenant, "owner"), await person(tenant, "viewer")
    number = await number_of(member)
    async with visiting(owner) as visit, visiting(member) as theirs:
        assert (await confirmed(visit, "/team", do="role", member=number, role="operator"))[0] == 302
        assert await role_of(member, tenant) == "operator"
        assert (await theirs.get("/audit"))[0] == 200
        assert (await confirmed(visit, "/team", do="remove", member=number))[0] == 302
        assert (await theirs.get("/team", tenant=tenant.slug))[0] == 404

    assert await role_of(member, tenant) is None
    assert await actions(tenant) == [
        ("membership.change", owner.get_username(), WHY),
        ("membership.remove", owner.get_username(), WHY),
    ]


@pytest.mark.parametrize("do", ["role", "remove"])
async def test_the_last_owner_stays(visiting: As, tenant: Tenant, do: str):
    """Also where another owner's account is disabled: nobody could sign in as one."""
    owner, disabled = await person(tenant, "owner"), await person(tenant, "owner")
    await in_thread(lambda: get_user_model().objects.filter(pk=disabled.pk).update(is_active=False))
    async with visiting(owner) as visit:
        status, _ = await confirmed(visit, "/team", do=do, member=await number_of(owner), role="viewer")
        _, page = await visit.get("/team")

    assert status == 302
    assert "needs an owner who can sign in" in page
    assert await role_of(owner, tenant) == "owner"
    assert await actions(tenant) == []


async def test_one_of_two_owners_may_leave(visiting: As, tenant: Tenant):
    owner, _ = await person(tenant, "owner"), await person(tenant, "owner")
    async with visiting(owner) as visit:
        status, place = await confirmed(visit, "/team", do="remove", member=await number_of(owner))

    assert (status, place) == (302, "/")
    assert await role_of(owner, tenant) is None


async def test_a_member_whose_role_somebody_else_has_changed_is_not_removed(visiting: As, tenant: Tenant):
    owner, member = await person(tenant, "owner"), await person(tenant, "viewer")
    async with visiting(owner) as visit:
        _, page = await visit.get("/team", do="role", member=await number_of(member), role="operator")
        await in_thread(lambda: Membership.objects.filter(user=member).update(role="operator"))
        fields = {"do": "role", "member": await number_of(member), "role": "operator", "seen": 1, "reason": WHY}
        await visit.post("/team", **fields)

    assert "1</strong> member" in page
    assert await actions(tenant) == []


async def test_an_invitation_is_listed_with_its_link_renewed_and_withdrawn(visiting: As, tenant: Tenant):
    owner = await person(tenant, "owner")
    async with visiting(owner) as visit, visiting() as guest:
        assert (await visit.post("/team", do="invite", email="ada@shop.example", role="viewer"))[0] == 302
        _, page = await visit.get("/team")
        assert "No e-mail is sent" in page
        link = re.search(r"<code>https?://[^/]+(/invitation/[^<]+)</code>", page)
        assert link
        assert (await guest.get(link[1]))[0] == 200
        number = await in_thread(lambda: Invitation.objects.get(tenant=tenant).pk)
        await in_thread(lambda: Invitation.objects.update(created_at=timezone.now() - timedelta(days=15)))
        assert "Expired." in (await visit.get("/team"))[1]
        assert (await visit.post("/team", do="resend", invitation=number))[0] == 302
        assert "/invitation/" in (await visit.get("/team"))[1]
        assert (await visit.post("/team", do="withdraw", invitation=number))[0] == 302
        assert (await guest.get(link[1]))[0] == 404

    assert [action for action, *_ in await actions(tenant)] == [
        "invitation.add",
        "invitation.renew",
        "invitation.withdraw",
    ]


async def test_links_of_invitations_are_shown_to_owners_only(visiting: As, tenant: Tenant):
    async with database.own_connection():
        await invitations.invite(tenant=tenant, email="ada@shop.example", role="owner", by="x", home="")
    async with visiting(await person(tenant, "operator")) as visit:
        assert "/invitation/" not in (await visit.get("/team"))[1]


@pytest.mark.parametrize(
    ("email", "role", "said"),
    [("ada", "viewer", "not an e-mail address"), ("a@b.example", "king", "A role is one of"), ("olga@shop.example", "viewer", "already")],
)  # fmt: skip
async def test_an_invitation_that_is_refused_says_why(visiting: As, tenant: Tenant, email: str, role: str, said: str):
    await in_thread(lambda: make_person(tenant=tenant, role="viewer", email="olga@shop.example"))
    async with visiting(await person(tenant, "owner")) as visit:
        status, page = await visit.post("/team", do="invite", email=email, role=role)

    assert status == 422
    assert said in page


# -- Settings --------------------------------------------------------------------------------------------------------


async def saved(visit: Visit, **fields: str) -> tuple[int, str]:
    return await visit.post(
        "/settings", **{"do": "save", "name": "Shop", "time_zone": "UTC", "max_amount": "", **fields}
    )


async def fresh(tenant: Tenant) -> Tenant:
    async with database.own_connection():
        return await Tenant.async_objects.aget(pk=tenant.pk)


async def test_an_owner_changes_name_time_zone_and_largest_payment(visiting: As, tenant: Tenant, api: Api):
    async with visiting(await person(tenant, "owner")) as visit:
        answer = await saved(visit, name="Corner shop", time_zone="Asia/Tokyo", max_amount="1000")

    found = await fresh(tenant)
    assert answer[0] == 302
    assert (found.name, found.time_zone, found.max_amount) == ("Corner shop", "Asia/Tokyo", 1000)
    assert [action for action, *_ in await actions(tenant)] == ["tenant.change"]

    async def refuses() -> bool:
        async with api.post("/payments", json={"amount": "10.01"}) as response:
            return response.status == 422

    await eventually(refuses)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("name", "", "what your business is called"), ("time_zone", "Mars/Base", "Choose a time zone"), ("max_amount", "-1", "whole number"),
        ("max_amount", "9" * 20, "whole number"), ("max_amount", "0" * 19 + "9" * 20, "whole number"),
        ("max_amount", "1" * 5000, "whole number"), ("max_amount", "0", "whole number"), ("time_zone", "../etc/passwd", "Choose"),
    ],
)  # fmt: skip
async def test_a_setting_that_is_wrong_says_so_and_changes_nothing(
    visiting: As, tenant: Tenant, field: str, value: str, said: str
):
    async with visiting(await person(tenant, "owner")) as visit:
        status, page = await saved(visit, **{field: value})

    assert status == 422
    assert said in page
    assert (await fresh(tenant)).name == tenant.name


async def test_in_live_mode_an_owner_lowers_the_largest_payment_only(visiting: As, tenant: Tenant):
    await in_thread(lambda: Tenant.objects.filter(pk=tenant.pk).update(mode="live", max_amount=5000))
    async with visiting(await person(tenant, "owner")) as visit:
        assert (await saved(visit, max_amount="5001"))[0] == 422
        assert (await saved(visit, max_amount=""))[0] == 422
        assert (await saved(visit, max_amount="4000"))[0] == 302

    assert (await fresh(tenant)).max_amount == 4000


@pytest.mark.parametrize(
    ("everyone", "named", "said"),
    [(None, False, "Queued, the default"), (None, True, "Inline, for this tenant"), (False, True, "Queued, for all tenants"), (True, False, "Inline, for all tenants")],
)  # fmt: skip
async def test_the_page_says_how_payments_are_sent(
    visiting: As, tenant: Tenant, everyone: bool | None, named: bool, said: str
):
    def switch() -> None:
        flag, _ = Flag.objects.update_or_create(name="inline.payment", defaults={"everyone": everyone})
        flag.tenants.set([tenant] if named else [])

    await in_thread(switch)
    async with visiting(await person(tenant, "viewer")) as visit:
        _, page = await visit.get("/settings")

    assert f"<dt>Payments</dt><dd>{said}" in page


async def test_a_sandbox_is_emptied_with_the_number_that_the_owner_saw(visiting: As, tenant: Tenant):
    processor = await in_thread(make_processor, tenant)
    for _ in range(3):
        await in_thread(make_payment, tenant, status=SUCCEEDED, processor=processor)
    async with visiting(await person(tenant, "owner")) as visit:
        _, page = await visit.get("/settings", do="purge")
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
        await in_thread(make_payment, tenant)  # created meanwhile: it stays
        status, _ = await visit.post("/settings", **{**hidden, "do": "purge", "reason": WHY})

    assert (status, hidden["seen"]) == (302, "3")
    async with database.own_connection():
        assert await Payment.async_objects.filter(tenant=tenant).acount() == 1
    assert (await actions(tenant))[-1][::2] == ("tenant.empty", WHY)


async def test_a_large_sandbox_is_emptied_by_a_job(visiting: As, tenant: Tenant, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(purge, "AT_ONCE", 1)
    for _ in range(2):
        await in_thread(make_payment, tenant, status=SUCCEEDED)

    async def taken() -> Any:
        return lambda kind: True

    monkeypatch.setattr("payments.jobs.operate.waiting.taken_kinds", taken)  # as where a worker of jobs lives
    async with visiting(await person(tenant, "owner")) as visit:
        assert (await confirmed(visit, "/settings", do="purge"))[0] == 302
        assert "removes them" in (await visit.get("/settings"))[1]
    await run()
    async with database.own_connection():
        assert await Payment.async_objects.filter(tenant=tenant).acount() == 0


async def test_a_live_tenant_has_nothing_to_empty(visiting: As, tenant: Tenant):
    await in_thread(lambda: Tenant.objects.filter(pk=tenant.pk).update(mode="live"))
    async with visiting(await person(tenant, "owner")) as visit:
        assert "Empty the sandbox" not in (await visit.get("/settings"))[1]
        assert (await visit.get("/settings", do="purge"))[0] == 404


async def test_an_owner_exports_all_data_by_a_job(visiting: As, tenant: Tenant):
    async with visiting(await person(tenant, "owner")) as visit:
        assert (await confirmed(visit, "/settings", do="export"))[0] == 302
        await run()
        async with database.own_connection():
            job = await Job.async_objects.aget(tenant=tenant, kind="tenant.export")
        _, page = await visit.get("/settings")

    assert job.status == "succeeded"
    assert f"/jobs/{job.uuid}/live" in page


# -- Audit log -------------------------------------------------------------------------------------------------------


async def record(tenant: Tenant, actor: str, action: str, **fields: Any) -> None:
    await in_thread(lambda: AuditEntry.objects.create(tenant=tenant, actor=actor, action=action, target="x", **fields))


async def listed(visit: Visit, **query: str) -> list[str]:
    _, page = await visit.get("/audit", **query)
    return re.findall(r'<td role="cell" class="mono">([^<]+)</td>', page)


async def test_entries_are_filtered_by_actor_action_and_time(visiting: As, tenant: Tenant):
    other = await in_thread(make_tenant)
    await record(tenant, "olga", "apikey.issue")
    await record(tenant, "pete", "apikey.revoke")
    await record(tenant, "olga", "job.cancel")
    await record(other, "olga", "theirs.only")
    tomorrow = f"{timezone.now() + timedelta(days=1):%Y-%m-%dT%H:%M}"
    async with visiting(await person(tenant, "operator")) as visit:
        assert await listed(visit) == ["job.cancel", "apikey.revoke", "apikey.issue"]
        assert await listed(visit, actor="olga") == ["job.cancel", "apikey.issue"]
        assert await listed(visit, action="apikey.") == ["apikey.revoke", "apikey.issue"]
        assert await listed(visit, to=tomorrow) == ["job.cancel", "apikey.revoke", "apikey.issue"]
        assert await listed(visit, **{"from": tomorrow}) == []


async def test_entries_are_paged_also_where_several_have_the_same_time(
    visiting: As, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("registry.operators.pages.audit.ROWS", 2)
    at = timezone.now()
    for n in range(5):
        await record(tenant, "olga", f"thing.{n}", at=at)
    seen: list[str] = []
    async with visiting(await person(tenant, "operator")) as visit:
        address = "/audit"
        while address:
            _, page = await visit.get(address)
            seen += re.findall(r'<td role="cell" class="mono">([^<]+)</td>', page)
            older = re.search(r'href="([^"]+before=[^"]+)">Older', page)
            address = unescape(older[1]) if older else ""

    assert seen == [f"thing.{n}" for n in reversed(range(5))]


async def test_the_verification_says_what_it_found(visiting: As, tenant: Tenant):
    await record(tenant, "olga", "apikey.issue")
    async with visiting(await person(tenant, "operator")) as visit:
        _, sound = await visit.post("/audit", do="verify")
        await in_thread(_forge, tenant)
        _, broken = await visit.post("/audit", do="verify")

    assert "1 entry is unchanged" in sound
    assert "was changed" in broken


def _forge(tenant: Tenant) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("UPDATE registry_auditentry SET actor = 'nobody' WHERE tenant_id = %s", [tenant.pk])
        cursor.execute("SET session_replication_role = origin")


def test_new_prefixes_are_those_of_keys():
    assert re.fullmatch(r"[0-9a-f]{12}", access.new_prefix())
