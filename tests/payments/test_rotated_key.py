"""Rotation of SECRET_KEY: signatures and ciphertexts of the old key are valid while it is a fallback, and not longer."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from payments.billing import invitations
from payments.billing.errors import InvitationInvalid
from payments.models import Invitation
from registry.data import database
from registry.tenants import encryption
from registry.tenants.encryption import Sealed
from tests.conftest import Api
from tests.factories import in_thread, make_person
from tests.payments.test_sockets import NO_RIGHT, close_code, payers_socket, read
from tests.queueing.test_console import session_of

PROJECT = Path(__file__).resolve().parents[2]
NEW = "n" * 50


@pytest.fixture(params=[True, False], ids=["the old key is a fall-back", "the old key is gone"])
def rotate(request: pytest.FixtureRequest, settings: Any) -> Any:
    """Called in the middle of a test; returns whether what is older is still good."""

    def rotate() -> bool:
        settings.SECRET_KEY_FALLBACKS = ["f" * 50, settings.SECRET_KEY] if request.param else []
        settings.SECRET_KEY = NEW
        return request.param

    return rotate


async def test_a_payers_link_opens_page_poll_and_socket(api: Api, rotate):
    payment = await api.pay()
    link = urlsplit(payment["liveUrl"])
    good = rotate()

    async with Api(api.address) as payer:
        async with payer.get(f"{link.path}?{link.query}") as page:
            pass
        async with payer.get(f"/payments/{payment['correlationId']}/events?wait=0&{link.query}") as poll:
            pass
    async with payers_socket(api, payment) as ws:
        said = (await read(ws))["sequence"] if good else await close_code(ws)

    assert (page.status, poll.status, said) == ((200, 200, 1) if good else (404, 404, NO_RIGHT))


async def test_new_links_are_signed_with_the_new_key(api: Api, rotate, settings):
    payment = await api.pay()
    rotate()
    again = await api.pay()
    settings.SECRET_KEY_FALLBACKS = []

    async with Api(api.address) as payer, payer.get(again["liveUrl"]) as new, payer.get(payment["liveUrl"]) as old:
        assert (new.status, old.status) == (200, 404)


async def test_an_invitation_is_accepted(tenant, rotate):
    invitation = await in_thread(
        Invitation.objects.create, tenant=tenant, email="ana@example.com", role="viewer", invited_by="owner"
    )
    token = invitations.link(invitation).rpartition("/")[2]

    good = rotate()

    async with database.own_connection():
        if good:
            assert await invitations.read(token) == invitation
        else:
            with pytest.raises(InvitationInvalid):
                await invitations.read(token)


def test_encrypted_secrets_are_read(rotate):
    sealed = encryption.seal({"secretKey": "hush-hush"}, place="here")

    if rotate():
        assert encryption.unseal(sealed, place="here") == {"secretKey": "hush-hush"}
    else:
        with pytest.raises(Sealed):
            encryption.unseal(sealed, place="here")


async def test_sessions_stay_valid_on_sockets_and_pages(server: str, tenant, rotate):
    """The socket first: it must not end the session that it cannot renew."""
    session = await in_thread(lambda: session_of(make_person(tenant=tenant)))
    good = rotate()

    headers = {"Cookie": f"sessionid={session}"}
    async with aiohttp.ClientSession(server, headers=headers) as person:
        async with person.ws_connect("/ws/payments", headers={"Origin": server}) as ws:
            await ws.send_json({"type": "ping"})
            listening = (await ws.receive(timeout=10)).type == aiohttp.WSMsgType.TEXT
        async with person.get("/queues", allow_redirects=False) as page:
            pass

    assert (listening, page.status) == ((True, 200) if good else (False, 302))


def test_every_use_of_the_key_considers_its_fallbacks():
    sources = [path for app in ("registry", "queueing", "payments") for path in (PROJECT / app).rglob("*.py")]
    users = {
        path: text for path in sources if re.search(r"settings\.SECRET_KEY\b|channels\.auth", text := path.read_text())
    }

    assert len(users) >= 2
    assert [path.name for path, text in users.items() if "SECRET_KEY_FALLBACKS" not in text] == []
