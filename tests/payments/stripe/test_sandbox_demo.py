"""The sandbox Stripe beside the demo: a program with a folder, a processor of the demo's tenant, a button in the stream."""

import re
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from django.core.management import call_command

from payments.models import Payment, Processor
from payments.processors import base
from payments.routing import accounts
from payments.routing.endpoint import EndpointCondition
from payments.routing.routing import choose
from queueing.models import WebhookEndpoint
from queueing.outbound import testkit
from queueing.outbound.signing import Secrets, new_secret
from registry.data import database
from registry.models import Tenant
from sandbox import home
from sandbox.server import listen
from tests.bed.stripe import SandboxStripe
from tests.factories import in_thread, make_processor, make_stripe

ROOT = Path(__file__).parents[3]
LIMIT = 30.0  # seconds for what takes one, beside other tests
type Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def data(settings: Any, tmp_path: Path) -> Path:
    settings.REGISTRY_DATA = tmp_path
    return tmp_path


@pytest.fixture
def start(data: Path) -> Iterator[Start]:
    """The program, as `up --demo` starts it. Returns once it listens."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "sandbox", "--home", str(data / "stripe"), *arguments]
        program = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        started.append(program)
        assert program.stderr and "Stripe simulator at" in program.stderr.readline()
        return program

    yield run
    for program in started:
        program.kill()
        program.communicate(timeout=LIMIT)


def prepare() -> None:
    call_command("demo", "--prepare", "--stripe", stdout=StringIO())


def test_the_program_restarts_with_its_keys_and_its_port(start: Start, data: Path):
    first = start()
    before = home.load(data / "stripe")
    first.send_signal(signal.SIGTERM)
    status = first.wait(LIMIT)

    start()

    assert (status, before) == (0, home.load(data / "stripe"))
    assert stat.S_IMODE(home.path(data / "stripe").stat().st_mode) == 0o600


def test_a_port_that_was_taken_meanwhile_is_replaced(start: Start, data: Path):
    with listen() as taken:
        home.save(data / "stripe", facts := home.fresh())
        facts.port = taken.getsockname()[1]
        home.save(data / "stripe", facts)

        start()

    now = home.load(data / "stripe")
    assert now and now.port not in (0, facts.port) and now.secret_key == facts.secret_key


def test_the_demo_has_a_processor_that_is_used_by_name_only(start: Start, data: Path):
    start()

    prepare()

    facts = home.load(data / "stripe")
    processor = Processor.objects.get(tenant__slug="demo", kind="stripe")
    assert facts and (processor.url, processor.options["onlyByName"]) == (facts.url, True)
    assert accounts.opened(processor) == {"secretKey": facts.secret_key, "webhookSecrets": [facts.webhook_secret]}
    assert WebhookEndpoint.objects.get(tenant__slug="demo").url == f"{facts.url}/sandbox/shop/hook"


def test_a_sandbox_that_lost_its_folder_is_set_up_again(start: Start, data: Path):
    start()
    prepare()
    home.path(data / "stripe").unlink()
    start()

    prepare()

    facts = home.load(data / "stripe")
    processor = Processor.objects.get(tenant__slug="demo", kind="stripe")
    assert facts and (processor.url, accounts.opened(processor)["secretKey"]) == (facts.url, facts.secret_key)
    assert WebhookEndpoint.objects.get(tenant__slug="demo").url == f"{facts.url}/sandbox/shop/hook"


async def test_the_shop_shows_received_webhooks_once(http):
    message = {"type": "payment.succeeded", "data": {"amount": "42.00", "currency": "BRL"}}
    for _ in range(2):
        async with http.post("/sandbox/shop/hook", json=message, headers={"webhook-id": "msg_1"}) as answer:
            assert answer.status == 204

    async with http.get("/sandbox/shop") as answer:
        html = await answer.text()

    assert html.count("<b>payment.succeeded</b> 42.00 BRL") == 1


async def test_the_shop_passes_every_check_of_the_test_kit(stripe: SandboxStripe):
    stripe.sandbox.shop.secret = new_secret()

    checks = testkit.run(f"{stripe.url}/sandbox/shop/hook", stripe.sandbox.shop.secret)
    failed = [f"{one.name}: {one.happened}" async for one in checks if not one.passed]

    assert failed == []


def test_the_shop_knows_the_secret_of_its_endpoint(start: Start, data: Path):
    start()
    prepare()

    endpoint = WebhookEndpoint.objects.get(tenant__slug="demo")
    facts = home.load(data / "stripe")
    assert facts and Secrets.unsealed(endpoint.secrets, place=endpoint.place).newest == facts.shop_secret


async def test_the_shop_refuses_invalid_messages(http):
    async with http.post("/sandbox/shop/hook", data=b"[]") as answer:
        assert answer.status == 400


# -- Asked for by name only ----------------------------------------------------------------------------------


def account(name: str, **options: Any) -> tuple[base.Account, EndpointCondition]:
    found = base.Account(
        id=1, tenant_id=1, name=name, kind="x", url="", fee_ppm=1, options=options, enabled=True, endpoint=name
    )
    return found, EndpointCondition(name)


@pytest.mark.parametrize(("wanted", "chosen"), [("", "plain"), ("card", "card"), ("plain", "plain")])
def test_only_payments_that_name_it_are_sent_there(wanted: str, chosen: str):
    route = choose([account("card", onlyByName=True), account("plain")], wanted=wanted, now=0.0)

    assert route and route.account.name == chosen
    assert "card" not in route.reason


def test_without_another_processor_a_payment_waits():
    assert choose([account("card", onlyByName=True)], now=0.0) is None


# -- The button -----------------------------------------------------------------------------------------------


@pytest.fixture
async def open_tenant(tenant: Tenant, settings: Any) -> Tenant:
    settings.REGISTRY_OPEN_TENANT = tenant.slug
    async with database.own_connection():
        await Tenant.async_objects.filter(pk=tenant.pk).aupdate(open=True)
    await in_thread(make_processor, tenant, "default")
    return tenant


@pytest.fixture
async def visitor(server: str, open_tenant: Tenant) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(server, cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        yield browser


async def send_by_card(visitor: aiohttp.ClientSession) -> tuple[str, int, str]:
    """The form, sent as a browser without scripts does: the page before, the answer's status and where it leads."""
    async with visitor.get("/") as answer:
        html = await answer.text()
    token = re.search('name="csrfmiddlewaretoken" value="([^"]+)"', html)
    said = {"amount": "42.00", "description": "Shoes", "by": "card", "csrfmiddlewaretoken": token[1] if token else ""}
    async with visitor.post("/test-payment", data=said, allow_redirects=False) as answer:
        return html, answer.status, urlsplit(answer.headers.get("Location", "")).path


async def test_a_payment_by_card_goes_to_the_processor_that_takes_cards(visitor, open_tenant: Tenant, stripe):
    await in_thread(make_stripe, open_tenant, stripe.url, options={"onlyByName": True})

    html, status, page = await send_by_card(visitor)

    payment = await in_thread(Payment.objects.get, tenant=open_tenant)
    assert "Pay by card" in html
    assert (status, page) == (302, f"/payments/{payment.correlation_id}/live")
    assert payment.wanted_processor == "stripe"


async def test_without_such_a_processor_there_is_no_button(visitor, open_tenant: Tenant):
    html, status, _ = await send_by_card(visitor)

    assert ("Pay by card" in html, status) == (False, 404)
