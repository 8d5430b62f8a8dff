"""The demo: a tenant with two sandbox processors, a login, and payments that look like a shop's."""

import asyncio
import logging
import os
import random
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import IntegrityError, connection
from django_async_backend.db.transaction import async_atomic

from payments.errors import PaymentError
from payments.models import Processor
from payments.routing import accounts
from queueing.models import WebhookEndpoint
from queueing.outbound import endpoints
from queueing.outbound.signing import Secrets
from registry.errors import Problem
from registry.models import ApiKey, Tenant
from registry.tenants import access, keys
from sandbox import home
from sandbox.shop import HOOK

log = logging.getLogger(__name__)

TENANT, LOGIN, ACTOR = "demo", "operator", "demo"
PROCESSORS = (("default", "0.05"), ("fallback", "0.15"))
STRIPE = "stripe"  # the processor's name; the sandbox Stripe sends its webhooks to demo.stripe
STRIPE_LIMIT = 15.0  # seconds for the Stripe sandbox to start; it usually takes half a second
SHOP, SHOP_EVENTS = "The demo's shop", ["payment.succeeded", "payment.requires_action", "refund.", "dispute."]
STRIPE_PAUSE = 0.1  # seconds between two checks whether it has started
SCOPES = [
    scope.value for scope in (ApiKey.Scope.READ, ApiKey.Scope.WRITE, ApiKey.Scope.ADMIN)
]  # for every example of the documents


class NotADemo(PaymentError):
    """The tenant named demo takes live money; the demo leaves it alone."""

    status = 409


class Access(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Secrets of the demo, known only when created; kept in REGISTRY_DATA/demo.json (mode 0600)."""

    password: str = ""
    api_key: str = ""


async def prepare(*, stripe: bool = False) -> Access:
    """Create what the demo lacks; existing rows stay unchanged. Raises NotADemo (409).

    With `stripe`, wait for the Stripe sandbox, which starts at the same time, and add it as a processor.
    """
    tenant = await _tenant()
    await _processors(tenant)
    if stripe and (facts := await _sandbox_stripe()):
        await _stripe(tenant, facts)
        await _shop(tenant, f"{facts.url}{HOOK}", facts.shop_secret)
    known = load()
    if not await _is_usable(known.api_key, tenant):
        _, known.api_key = await keys.issue(tenant=tenant, actor=ACTOR, scopes=SCOPES, name="demo")
    known.password = await sync_to_async(_login)(known.password)
    save(known)
    return known


async def _tenant() -> Tenant:
    tenant = await Tenant.async_objects.filter(slug=TENANT).afirst()
    if tenant is None:
        try:
            async with async_atomic():
                return await access.create_tenant(slug=TENANT, name="Demo shop", currency="BRL", open=True)
        except IntegrityError:  # another process prepares the demo too
            tenant = await Tenant.async_objects.aget(slug=TENANT)
    if tenant.mode != Tenant.Mode.SANDBOX:
        raise NotADemo
    return tenant


async def _processors(tenant: Tenant) -> None:
    for name, fee in PROCESSORS:
        await Processor.async_objects.aget_or_create(tenant=tenant, name=name, defaults={"kind": "sandbox", "fee": fee})


async def _sandbox_stripe() -> home.Facts | None:
    """Address and keys of the Stripe sandbox; None if it does not start in time: the demo then has no cards."""
    try:
        async with asyncio.timeout(STRIPE_LIMIT):
            while True:
                facts = await asyncio.to_thread(home.load, stripe_home())
                if facts and await _listens(facts):
                    return facts
                await asyncio.sleep(STRIPE_PAUSE)
    except TimeoutError:
        log.error("the sandbox Stripe does not answer: the demo has no card payments")
        return None


async def _listens(facts: home.Facts) -> bool:
    try:
        _, writer = await asyncio.open_connection(facts.host, facts.port)
    except OSError:
        return False
    writer.close()
    return True


async def _stripe(tenant: Tenant, facts: home.Facts) -> None:
    """Used only when named in the request: a payment without a card would wait for its payer."""
    secrets = {"secretKey": facts.secret_key, "webhookSecret": facts.webhook_secret}
    options = {"publishableKey": facts.publishable_key, "onlyByName": True}
    known = Processor.async_objects.filter(tenant=tenant, name=STRIPE)
    if (processor := await known.afirst()) is None:
        await accounts.add(
            tenant=tenant,
            name=STRIPE,
            kind="stripe",
            actor=ACTOR,
            url=facts.url,
            fee="0.039",
            options=options | secrets,
        )
        return
    if processor.url != facts.url:  # the sandbox moved to another port
        await known.aupdate(url=facts.url)
    if (
        accounts.opened(processor).get("secretKey") != facts.secret_key
    ):  # the sandbox's folder was lost, and its payments with it
        await accounts.change_secrets(tenant=tenant, name=STRIPE, options=secrets, actor=ACTOR, any_account=True)


async def _is_usable(plain: str, tenant: Tenant) -> bool:
    prefix = plain.split("_")[1] if plain.count("_") >= 2 else ""
    key = await ApiKey.async_objects.usable().filter(prefix=prefix, tenant=tenant).afirst()
    return key is not None and set(SCOPES) <= set(key.scopes)


def _login(password: str) -> str:
    """The operator's password; empty if it was changed since."""
    try:
        people = get_user_model().objects
        user = people.filter(username=LOGIN).first()
        if user is None:
            password = password or secrets.token_urlsafe(12)
            people.create_superuser(LOGIN, password=password)
            return password
        if not password:  # the file is lost: without a new password nobody could sign in
            password = secrets.token_urlsafe(12)
            user.set_password(password)
            user.save(update_fields=["password"])
            return password
        return password if user.check_password(password) else ""
    finally:
        connection.close()  # this thread's own


# -- The demo's file ----------------------------------------------------------------------------------------------


def path() -> Path:
    return Path(settings.REGISTRY_DATA) / "demo.json"


async def _shop(tenant: Tenant, url: str, secret: str) -> None:
    """A webhook endpoint of the demo tenant, with the shop's secret; none if private addresses may not be called."""
    try:
        known = await WebhookEndpoint.async_objects.of(tenant.pk).filter(description=SHOP).afirst()
        if known is None:
            await endpoints.create(
                tenant_id=tenant.pk,
                mode=tenant.mode,
                actor=ACTOR,
                url=url,
                events=SHOP_EVENTS,
                description=SHOP,
                secret=secret,
            )
            return
        if known.url != url:
            await endpoints.change(tenant_id=tenant.pk, mode=tenant.mode, uuid=known.uuid, actor=ACTOR, url=url)
        if secret and Secrets.unsealed(known.secrets, place=known.place).newest != secret:
            await endpoints.rotate(tenant_id=tenant.pk, uuid=known.uuid, secret=secret)
    except Problem as refused:
        log.warning("the demo's shop gets no webhooks: %s", refused.detail)


def stripe_home() -> Path:
    """The folder of the Stripe sandbox."""
    return Path(settings.REGISTRY_DATA) / "stripe"


def load() -> Access:
    try:
        return msgspec.json.decode(path().read_bytes(), type=Access)
    except (OSError, msgspec.MsgspecError):
        return Access()


def save(known: Access) -> None:
    """Write to a temporary file and rename it, so that no reader sees half a file; mode 0600 from the first byte."""
    path().parent.mkdir(parents=True, exist_ok=True)
    fresh = path().with_suffix(f".{os.getpid()}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.encode(known))
    fresh.replace(path())


# -- Plausible payments -------------------------------------------------------------------------------------

GOODS = (
    ("Espresso", 650, 900),
    ("Lunch menu", 2490, 4590),
    ("Bus pass, ten rides", 4400, 4400),
    ("Phone case", 3990, 8990),
    ("Concert ticket", 9000, 32000),
    ("Textbook", 5900, 18900),
    ("Running shoes", 24990, 69990),
    ("Course fee", 35000, 120000),
    ("Noise-cancelling headphones", 89900, 189900),
)
WEIGHTS = (26, 18, 8, 14, 9, 9, 8, 5, 3)
CHANNELS, CITIES = ("web", "app", "counter"), ("Recife", "Curitiba", "Belém", "Salvador", "São Paulo")


def purchase() -> dict[str, Any]:
    """The body of one `POST /payments`; its id stays the same when it is sent again."""
    what, least, most = random.choices(GOODS, WEIGHTS)[0]
    cents = random.randrange(least, most + 1, 10)
    body: dict[str, Any] = {
        "correlationId": str(uuid4()),
        "amount": f"{cents // 100}.{cents % 100:02d}",
        "currency": "BRL",
        "description": what,
        "metadata": {
            "order": f"D-{random.randrange(10_000, 100_000)}",
            "channel": random.choice(CHANNELS),
            "city": random.choice(CITIES),
        },
    }
    if random.random() < 0.05:
        body["priority"] = 9
    return body


def pauses() -> Iterator[float]:
    """Seconds between purchases: 2 to 4 a second on average, sometimes several at once."""
    while True:
        if random.random() < 0.04:
            yield from (0.02,) * random.randrange(3, 9)
        yield min(2.0, random.expovariate(2.6))


def facts(url: str, known: Access) -> dict[str, str]:
    return {
        "url": url,
        "adminUrl": f"{url}/admin/",
        "login": LOGIN,
        "password": known.password,
        "apiKey": known.api_key,
    }
