"""The tenant's job secret: made on first use, shown and rotated by those who administer, recorded."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest

from queueing.models import JobSecret
from queueing.outbound import job_secret
from registry.data import database
from registry.models import AuditEntry, Tenant
from tests.conftest import Api, make_key
from tests.factories import in_thread, make_person
from tests.queueing.test_console import As, visiting  # noqa: F401 - a fixture
from tests.queueing.test_jobs import get, post

PAGE = "/webhooks/callbacks"


@pytest.fixture
async def admin(server: str, tenant: Tenant) -> AsyncIterator[Api]:
    async with Api(server, await make_key(tenant, "admin")) as client:
        yield client


async def trail() -> list[tuple[str, str]]:
    return await in_thread(lambda: list(AuditEntry.objects.order_by("id").values_list("action", "target")))


async def test_the_first_use_makes_the_secret_and_later_ones_give_the_same(admin: Api, tenant: Tenant) -> None:
    assert not await in_thread(JobSecret.objects.exists)
    secret = (await get(admin, "/job-secret"))["secret"]

    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    assert await get(admin, "/job-secret") == {"secret": secret}


async def test_many_first_uses_at_once_make_one_secret(tenant: Tenant) -> None:
    found = await asyncio.gather(*(job_secret.of(tenant.pk) for _ in range(20)))

    assert len({secrets.newest for secrets in found}) == 1


async def test_tenants_have_secrets_of_their_own(admin: Api, stranger: Api, server: str) -> None:
    mine = await get(admin, "/job-secret")
    [other] = await in_thread(lambda: list(Tenant.objects.filter(slug__startswith="other-")))
    async with Api(server, await make_key(other, "admin")) as foreign:
        theirs = await get(foreign, "/job-secret")

    assert mine != theirs


async def test_only_a_key_that_may_administer_sees_or_rotates_it(api: Api) -> None:
    await get(api, "/job-secret", 403)
    await post(api, "/job-secret/rotate", 403)


async def test_it_is_sealed_in_the_database(admin: Api) -> None:
    secret = (await get(admin, "/job-secret"))["secret"]

    [[sealed]] = await database.fetch("SELECT sealed FROM queueing_jobsecret")
    assert secret.encode() not in bytes(sealed)


async def test_a_rotation_gives_another_one_and_both_sign(admin: Api, tenant: Tenant) -> None:
    before = (await get(admin, "/job-secret"))["secret"]
    after = (await post(admin, "/job-secret/rotate"))["secret"]

    secrets = await job_secret.of(tenant.pk)
    assert [text for text, _ in secrets.held] == [after, before]
    assert await get(admin, "/job-secret") == {"secret": after}


async def test_a_rotation_may_be_the_first_use(admin: Api) -> None:
    secret = (await post(admin, "/job-secret/rotate"))["secret"]

    assert await get(admin, "/job-secret") == {"secret": secret}


async def test_each_reading_and_each_rotation_is_recorded(admin: Api) -> None:
    await get(admin, "/job-secret")
    await post(admin, "/job-secret/rotate")

    assert await trail() == [("job_secret.show", "job secret"), ("job_secret.rotate", "job secret")]


# -- On the page ---------------------------------------------------------------------------------------------------


async def test_an_owner_is_shown_the_secret_once_and_with_a_reason(visiting: As, tenant: Tenant) -> None:  # noqa: F811
    person = await in_thread(make_person, tenant=tenant, role="owner")
    async with visiting(person) as visit:
        asked = await visit.get(PAGE, tenant=tenant.slug, do="show")
        silent = await visit.post(f"{PAGE}?tenant={tenant.slug}", do="show", seen=1, reason="")
        unrecorded = await trail()
        done = await visit.post(f"{PAGE}?tenant={tenant.slug}", do="show", seen=1, reason="for the receiver")
        shown, again = [await visit.get(PAGE, tenant=tenant.slug) for _ in range(2)]

    secret = (await job_secret.of(tenant.pk)).newest
    assert [code for code, _ in (asked, silent, done)] == [200, 422, 302]
    assert [secret in page for _, page in (asked, silent, shown, again)] == [False, False, True, False]
    assert (unrecorded, [action for action, _ in await trail()]) == ([], ["job_secret.show"])


async def test_an_owner_rotates_the_secret(visiting: As, tenant: Tenant) -> None:  # noqa: F811
    before = (await job_secret.of(tenant.pk)).newest
    person = await in_thread(make_person, tenant=tenant, role="owner")
    async with visiting(person) as visit:
        await visit.post(f"{PAGE}?tenant={tenant.slug}", do="rotate", seen=1, reason="it leaked")
        _, page = await visit.get(PAGE, tenant=tenant.slug)

    after = (await job_secret.of(tenant.pk)).newest
    assert (before == after, after in page) == (False, True)
    assert [action for action, _ in await trail()] == ["job_secret.rotate"]


@pytest.mark.parametrize("role", ["viewer", None])
async def test_who_may_not_act_gets_no_secret(visiting: As, tenant: Tenant, role: Any) -> None:  # noqa: F811
    person = await in_thread(make_person, tenant=tenant, role=role) if role else None
    async with visiting(person) as visit:
        _, page = await visit.get(PAGE, tenant=tenant.slug)
        code, _ = await visit.post(f"{PAGE}?tenant={tenant.slug}", do="show", seen=1, reason="curious")

    assert (code, "job secret…" in page) == (404, False)
    assert await trail() == []
