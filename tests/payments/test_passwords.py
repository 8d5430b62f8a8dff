"""A forgotten password: the link by e-mail, what it is worth, and what a stranger can learn."""

import re
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from limits import RateLimitItemPerMinute

from payments.billing import limits
from registry.models import AuditEntry
from tests.conftest import eventually
from tests.factories import in_thread, make_person
from tests.payments.signing_up import PASSWORD, Person

OTHER = "another horse battery staple"
LINK = re.compile(r"https?://[^/\s]+(/password/\S+)")


@pytest.fixture(autouse=True)
def _limits_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOGINS", RateLimitItemPerMinute(20, namespace=uuid4().hex))
    monkeypatch.setattr(limits, "EMAILS_OF_A_PERSON", RateLimitItemPerMinute(5, namespace=uuid4().hex))


@pytest.fixture
async def olga(server: str, settings) -> AsyncIterator[Person]:
    """She has a password, and the service has a mail server."""
    settings.EMAIL_URL = "smtp://localhost"
    await in_thread(lambda: make_person("olga", email="olga@example.com", password=PASSWORD))
    async with Person(server) as person:
        yield person


async def asks(person: Person, address: str = "olga@example.com") -> str:
    await person.opens("/password")
    await person.sends("/password", email=address)
    return person.page


async def link_of(mailoutbox) -> str:
    [letter] = await eventually(lambda: mailoutbox)
    found = LINK.search(letter.body)
    assert found
    return found[1]


async def signs_in(person: Person, password: str) -> str:
    await person.opens("/login")
    await person.sends("/login", username="olga", password=password)
    return person.at


async def test_a_new_password_is_set_by_the_link_and_the_old_one_is_refused(olga, mailoutbox):
    await asks(olga)
    link = await link_of(mailoutbox)
    await olga.opens(link)
    await olga.sends(link, password=OTHER)

    assert olga.at == "/login"
    assert "The password is changed." in olga.page
    assert await signs_in(olga, PASSWORD) == "/login"
    assert await signs_in(olga, OTHER) != "/login"
    assert await AuditEntry.async_objects.filter(action="password.reset", target="user olga").acount() == 1


async def test_a_link_works_once(olga, mailoutbox):
    await asks(olga)
    link = await link_of(mailoutbox)
    await olga.opens(link)
    await olga.sends(link, password=OTHER)

    await olga.opens(link)

    assert (olga.code, "This link was used, is too old" in olga.page) == (404, True)


async def test_a_link_is_valid_for_an_hour(olga, mailoutbox, settings, time_machine):
    await asks(olga)
    link = await link_of(mailoutbox)
    settings.PASSWORD_RESET_TIMEOUT = -1
    await olga.opens(link)

    assert olga.code == 404


@pytest.mark.parametrize(
    "link", ["/password/MQ/abc-def", "/password/zzz/x", "/password/LTE/x", "/password/" + "9" * 60 + "/x"]
)
async def test_an_invented_link_is_worth_nothing(olga, link):
    await olga.opens(link)

    assert olga.code == 404


async def test_a_stranger_does_not_learn_who_has_an_account(olga, mailoutbox):
    known, unknown = await asks(olga), await asks(olga, "nobody@example.com")

    await link_of(mailoutbox)
    assert "a link to set a new password is on its way" in known
    assert re.sub(r"\S+@\S+", "", known).partition("csrf")[0] == re.sub(r"\S+@\S+", "", unknown).partition("csrf")[0]


async def test_a_weak_password_is_refused_and_the_link_stays_good(olga, mailoutbox):
    await asks(olga)
    link = await link_of(mailoutbox)
    await olga.opens(link)
    await olga.sends(link, password="short")
    refused = olga.code, "too short" in olga.page
    await olga.sends(link, password=OTHER)

    assert (refused, olga.at) == ((422, True), "/login")


async def test_one_person_gets_few_emails(olga, mailoutbox, monkeypatch):
    monkeypatch.setattr(limits, "EMAILS_OF_A_PERSON", RateLimitItemPerMinute(1, namespace=uuid4().hex))
    await asks(olga)
    await link_of(mailoutbox)
    await asks(olga)
    await in_thread(lambda: make_person("paul", email="paul@example.com", password=PASSWORD))
    await asks(olga, "paul@example.com")

    await eventually(lambda: len(mailoutbox) > 1)
    assert [letter.to for letter in mailoutbox] == [["olga@example.com"], ["paul@example.com"]]


async def test_a_person_who_may_not_sign_in_gets_no_link(olga, mailoutbox):
    await in_thread(lambda: make_person("gone", email="gone@example.com", password=PASSWORD, is_active=False))
    await asks(olga, "gone@example.com")
    await asks(olga)

    assert await link_of(mailoutbox)
    assert [letter.to for letter in mailoutbox] == [["olga@example.com"]]


async def test_without_a_mail_server_the_page_says_whom_to_ask(olga, settings, mailoutbox):
    settings.EMAIL_URL = ""
    await olga.opens("/password")

    assert "manage.py changepassword NAME" in olga.page
    assert not mailoutbox
