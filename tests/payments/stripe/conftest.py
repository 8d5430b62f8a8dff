"""Fixtures: the sandbox Stripe, the real library against it, and a receiver of its webhooks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import stripe as library
from aiohttp import web

from tests.bed.stripe import SandboxStripe, sandbox_stripe


def client_of(url: str, secret_key: str) -> library.StripeClient:
    return library.StripeClient(
        secret_key,
        base_addresses={"api": url},
        http_client=library.AIOHTTPClient(timeout=5),
        max_network_retries=0,
    )


async def close(client: library.StripeClient) -> None:
    await client._requestor._client.close_async()


@pytest.fixture
async def stripe() -> AsyncIterator[SandboxStripe]:
    async with sandbox_stripe() as running:
        yield running


@pytest.fixture
async def client(stripe: SandboxStripe) -> AsyncIterator[Any]:
    """The real library's typed calls: `client.payment_intents.create_async(…)`."""
    made = client_of(stripe.url, stripe.secret_key)
    yield made.v1
    await close(made)


class Listening:
    """An endpoint that keeps what it is sent, and answers what it is told to."""

    def __init__(self) -> None:
        self.bodies: list[tuple[bytes, str]] = []  # as they came, with the signature
        self.status = 200

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """Its address."""
        application = web.Application()
        application.router.add_post("/hook", self.take)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        await runner.cleanup()

    async def take(self, request: web.Request) -> web.Response:
        self.bodies.append((await request.read(), request.headers["Stripe-Signature"]))
        return web.Response(status=self.status)

    @property
    def events(self) -> list[library.Event]:
        """Checked as the library checks them."""
        return [library.Webhook.construct_event(body, sign, "whsec_bed") for body, sign in self.bodies]

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]


@pytest.fixture
async def listening(stripe: SandboxStripe) -> AsyncIterator[Listening]:
    """Everything `stripe` tells is sent here."""
    listening = Listening()
    async with listening.open() as url:
        stripe.calls(url)
        yield listening


@pytest.fixture
async def http(stripe: SandboxStripe) -> AsyncIterator[aiohttp.ClientSession]:
    """For what the library would not send."""
    auth = {"Authorization": f"Bearer {stripe.secret_key}"}
    async with aiohttp.ClientSession(stripe.url, headers=auth) as session:
        yield session
