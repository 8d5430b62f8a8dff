"""A browser without JavaScript: it sends the forms of the pages that it was shown."""

import re
from collections.abc import Mapping
from html import unescape
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
from django.conf import settings
from django.test import Client
from django.urls import reverse
from yarl import URL

from payments.billing import signup
from registry.data import database
from tests.factories import in_thread

PASSWORD = "a long and quiet word"


def session_of(user: Any) -> dict[str, str]:
    """The cookie of a new session."""
    client = Client()
    client.force_login(user)
    return {settings.SESSION_COOKIE_NAME: client.cookies[settings.SESSION_COOKIE_NAME].value}


class Person:
    """`async with Person(server) as ann:` — cookies are kept, CSRF tokens and hidden fields are sent back."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.page = self.at = ""
        self.code = 0
        self.headers: Mapping[str, str] = {}

    async def __aenter__(self) -> Self:
        self.session = aiohttp.ClientSession(self.server, cookie_jar=aiohttp.CookieJar(unsafe=True))
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.session.close()

    async def opens(self, path: str) -> str:
        async with self.session.get(path) as response:
            return await self._shown(response)

    async def sends(self, path: str = "", **fields: Any) -> str:
        """Post the page's form, with what was filled in."""
        async with self.session.post(path or self.at, data={**self.hidden(), **fields}) as response:
            return await self._shown(response)

    def hidden(self) -> dict[str, str]:
        """The hidden fields of the page: the CSRF token, and the id of a sign-up that begins."""
        found = {}
        for tag in re.findall(r'<input type="hidden"[^>]*>', self.page):
            pairs = dict(re.findall(r'(name|value)="([^"]*)"', tag))
            found.setdefault(pairs["name"], unescape(pairs.get("value", "")))
        return found

    async def _shown(self, response: aiohttp.ClientResponse) -> str:
        self.page, self.code, self.at = await response.text(), response.status, urlsplit(str(response.url)).path
        self.headers = response.headers
        return self.page

    @property
    def title(self) -> str:
        found = re.search(r"<h1>(.*?)</h1>", self.page, re.S)
        return unescape(found[1]) if found else ""

    @property
    def errors(self) -> list[str]:
        """The sentences beside the fields, and above the form."""
        return [unescape(text) for text in re.findall(r'class="(?:bar said )?error"[^>]*>(.*?)</p>', self.page, re.S)]

    # -- The way -----------------------------------------------------------------------------------------------

    async def begins(self, slug: str = "", **changed: str) -> str:
        """The first step, filled in well unless told otherwise; the slug."""
        slug = slug or f"shop-{uuid4().hex[:10]}"
        await self.opens("/signup")
        await self.sends(**self.details(slug, **changed))
        return slug

    async def founds(self, plan: str = "") -> str:
        """The page after the first step, or after the choice of a plan; what is made on the way is made without pages.
        Returns the slug."""
        slug = f"shop-{uuid4().hex[:10]}"
        async with database.own_connection():
            given = signup.Details(self.details(slug))
            sign_up, owner = await signup.begin(id=uuid4(), given=given, user=None)
            if plan:
                await signup.choose(sign_up, plan)
        self.session.cookie_jar.update_cookies(await in_thread(session_of, owner), URL(self.server))
        await self.opens(reverse(f"signup_{sign_up.step}", args=[sign_up.id]))
        return slug

    @staticmethod
    def details(name: str, /, **changed: str) -> dict[str, str]:
        well = {"slug": name, "name": "Ann's shop", "currency": "BRL", "email": f"{name}@example.com"}
        return {**well, "password": PASSWORD, **changed}

    async def goes_to_payment(self, plan: str) -> None:
        """From the users' step to the payment's."""
        await self.sends(do="next")
        await self.sends(plan=plan)
