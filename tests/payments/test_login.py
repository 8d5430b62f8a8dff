"""Rate limit of sign-ins by address, on the pages and in the admin."""

from collections.abc import AsyncIterator
from ipaddress import ip_network
from uuid import uuid4

import pytest
from limits import RateLimitItemPerMinute

from payments.billing import limits
from tests.factories import in_thread, make_person
from tests.payments.signing_up import PASSWORD, Person

WAIT = "At most 2 per 1 minute. Please try again in "


@pytest.fixture(autouse=True)
def _two_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOGINS", RateLimitItemPerMinute(2, namespace=uuid4().hex))


@pytest.fixture
async def olga(server: str) -> AsyncIterator[Person]:
    """An operator of the service, not signed in yet."""
    await in_thread(make_person, "olga", password=PASSWORD)
    async with Person(server) as person:
        yield person


async def signs_in(person: Person, password: str, at: str = "/login", address: str = "") -> int:
    """What it was answered with; where it led stands in `person.at`. `address`: as a proxy would name it."""
    if address:
        person.session.headers["X-Forwarded-For"] = address
    await person.opens(at)
    await person.sends(at, username="olga", password=password)
    return person.code


async def test_too_many_tries_must_wait_even_with_the_right_password(olga):
    wrong = [await signs_in(olga, "a guess") for _ in range(2)]

    right = await signs_in(olga, PASSWORD)

    assert (wrong, right, olga.at) == ([200, 200], 429, "/login")
    assert 0 < int(olga.headers["Retry-After"]) <= 60
    assert WAIT in olga.page


async def test_tries_in_the_admin_count_with_those_on_the_pages(olga):
    for _ in range(2):
        await signs_in(olga, "a guess")

    await signs_in(olga, PASSWORD, "/admin/login/")

    assert olga.at == "/admin/login/"
    assert WAIT in olga.page


@pytest.mark.parametrize(("at", "leads_to"), [("/login", "/"), ("/admin/login/", "/admin/")])
async def test_occasional_sign_ins_are_not_limited(olga, at, leads_to):
    await signs_in(olga, PASSWORD, at)

    assert olga.at == leads_to


async def test_a_forged_address_header_does_not_avoid_the_limit(olga):
    """Where no proxy stands, whoever is on this machine is no proxy."""
    for number in range(2):
        await signs_in(olga, "a guess", address=f"203.0.113.{number}")

    await signs_in(olga, PASSWORD, address="203.0.113.9")

    assert olga.code == 429


async def test_the_addresses_of_one_ipv6_network_count_as_one(olga, settings):
    settings.TRUSTED_PROXIES = (ip_network("127.0.0.1"),)
    for number in range(2):
        await signs_in(olga, "a guess", address=f"2001:db8:1:2:{number}::1")

    await signs_in(olga, PASSWORD, address="2001:db8:1:2:9::9")
    same = olga.code
    await signs_in(olga, PASSWORD, address="2001:db8:1:3::1")

    assert (same, olga.at) == (429, "/")


async def test_behind_a_proxy_the_address_that_it_has_seen_counts(olga, settings):
    settings.TRUSTED_PROXIES = (ip_network("127.0.0.1"),)
    for number in range(2):
        await signs_in(olga, "a guess", address=f"198.51.100.{number}, 203.0.113.1")

    await signs_in(olga, PASSWORD, address="198.51.100.9, 203.0.113.1")
    same = olga.code
    await signs_in(olga, PASSWORD, address="203.0.113.2")

    assert (same, olga.at) == (429, "/")
