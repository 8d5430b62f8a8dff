"""Clients of Stripe's library, one per account and event loop, closed by their owner. Requests are in processor.py."""

import ssl
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, Self
from urllib.parse import urlsplit

import aiohttp
import stripe
from django.conf import settings

from payments.processors.base import Account
from registry.telemetry import traces

SEND_TIMEOUT = 12.0  # seconds for a send with all its requests; together with LOOK_UP_TIMEOUT less than a lease
LOOK_UP_TIMEOUT = 10.0  # seconds for a look-up with all its requests
CONNECT_TIMEOUT = 3.0  # seconds
CONNECTIONS = 200  # per account
LIVE_KEYS: Final = ("sk_live_", "rk_live_")


class Unusable(Exception):
    """The account's keys cannot be used; the message is a code such as "no_key"."""


class _Http(stripe.AIOHTTPClient):
    """Records each request of sampled work, and passes its span on."""

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        if (sent := traces.Outgoing.current()) is None:
            return await super().request_async(method, url, headers, post_data)
        to = urlsplit(url)
        with sent.to(method.upper(), to.hostname or "", to.port or 443):
            answer = await super().request_async(method, url, {**headers, **sent.headers}, post_data)
            sent.status = answer[1]
            return answer


class Clients:
    """The clients of one event loop. A changed key gets a new client."""

    def __init__(self) -> None:
        self._clients: dict[tuple[str, str], stripe.StripeClient] = {}
        self._open: list[stripe.AIOHTTPClient] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for client in self._open:
            await client.close_async()  # type: ignore[no-untyped-call]

    def of(self, account: Account) -> stripe.StripeClient:
        """The client for an account. Raises Unusable, registry.tenants.encryption.Sealed."""
        key = usable_key(account)
        client = self._clients.get((account.url, key))
        if client is None:
            client = self._clients[account.url, key] = self._make(account.url, key)
        return client

    def _make(self, url: str, key: str) -> stripe.StripeClient:
        http = _Http(
            timeout=aiohttp.ClientTimeout(total=SEND_TIMEOUT, sock_connect=CONNECT_TIMEOUT),
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=tls()),
        )
        self._open.append(http)
        # The library does not retry: our outcomes decide what is sent again, and with which key.
        if url:
            return stripe.StripeClient(key, base_addresses={"api": url}, http_client=http, max_network_retries=0)
        return stripe.StripeClient(key, http_client=http, max_network_retries=0)


def usable_key(account: Account) -> str:
    """The account's secret key. Raises Unusable: a live key is only used for live tenants, in production, at Stripe's own address."""
    key = account.secrets.get("secretKey")
    if not isinstance(key, str) or not key:
        raise Unusable("no_key")
    if key.startswith(LIVE_KEYS) and (account.url or not settings.PRODUCTION or account.mode != "live"):
        raise Unusable("live_key_refused")
    return key


@cache
def tls() -> ssl.SSLContext:
    """Made once per process: it reads a bundle of certificates, which takes longer than a request."""
    return ssl.create_default_context(cafile=stripe.ca_bundle_path)
