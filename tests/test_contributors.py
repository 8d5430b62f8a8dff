"""docs/contributors: every file and name that the pages speak of exists, and their examples run."""

import ast
import importlib.util
import re
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from uuid import UUID

import pytest
from aiohttp import web
from django.template import engines
from django.urls import clear_url_caches
from django.utils import timezone
from yarl import URL

import payments.pages
import registry.urls
from payments.models import Plan, Subscription
from payments.models.billing import Paid
from payments.processors import KINDS
from registry.edge import navigation
from registry.operators import attention
from registry.operators.alerts import rules
from registry.telemetry import metrics
from tests.conftest import Api, at_work
from tests.factories import in_thread, make_payment, make_person, make_processor, make_tenant
from tests.payments.signing_up import Person, session_of

PROJECT = Path(__file__).resolve().parents[1]
FOLDER = PROJECT / "docs" / "contributors"
EXTEND = (FOLDER / "extend.md").read_text()
NAMED = re.compile(r"`((?:registry|queueing|payments|templates|tests|bench|docs)/[\w/.-]+)`(?:: ((?:`\w+`(?:, )?)+))?")


def mentioned() -> list[tuple[str, str, str]]:
    """Page, file and names in it."""
    pages = [*sorted(FOLDER.glob("*.md")), PROJECT / "docs" / "code.md"]
    found = [(page.name, path, names or "") for page in pages for path, names in NAMED.findall(page.read_text())]
    assert len(found) > 60
    return list(dict.fromkeys(found))


TO_BE_WRITTEN = {
    path for path in re.findall(r"^`([\w/.]+)`:$|`([\w/.]+)`:\n```", EXTEND, re.M) for path in path if path
}


@pytest.mark.parametrize(("page", "path", "names"), mentioned())
def test_a_file_that_is_named_exists_and_has_the_names(page: str, path: str, names: str):
    file = PROJECT / path

    assert file.exists() or path in TO_BE_WRITTEN
    for name in re.findall(r"`(\w+)`", names):
        assert defines(file, name), f"{path} has no {name}"


def defines(file: Path, name: str) -> bool:
    text = file.read_text()
    if file.suffix == ".sql":
        return f"-- name: {name}\n" in text
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return any(isinstance(node, kinds) and node.name == name for node in ast.walk(ast.parse(text)))


# -- Examples --------------------------------------------------------------------------------------------------


def block(language: str, start: str) -> str:
    [found] = [
        text for text in re.findall(rf"^```{language}\n(.*?)^```", EXTEND, re.M | re.S) if text.startswith(start)
    ]
    return found


def module(name: str, text: str, folder: Path) -> ModuleType:
    """The example as a file, imported under `name`."""
    file = folder / f"{name.replace('.', '_')}.py"
    file.write_text(text)
    spec = importlib.util.spec_from_file_location(name, file)
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


@pytest.fixture(autouse=True)
def _no_module_stays() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("payments.pages.largest", "payments.billing.trials", "payments.processors.bank")):
            del sys.modules[name]


class Bank:
    """Takes transfers, declines those above 100.00, and loses its answer once."""

    def __init__(self) -> None:
        self.transfers: dict[str, dict] = {}
        self.loses_answer = False

    async def put(self, request: web.Request) -> web.Response:
        transfer = await request.json()
        if transfer["amount"] > 10_000:
            return web.Response(status=402)
        self.transfers[request.match_info["id"]] = transfer
        if self.loses_answer:
            self.loses_answer = False
            return web.Response(status=504)
        return web.json_response(transfer)

    async def get(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if request.match_info["id"] in self.transfers else 404)


@pytest.fixture
async def bank(tenant, tmp_path: Path, monkeypatch) -> AsyncIterator[Bank]:
    kind = module("payments.processors.bank", block("python", '"""Processors of kind `bank`'), tmp_path).BankProcessor
    monkeypatch.setitem(KINDS, "bank", kind)
    bank = Bank()
    application = web.Application()
    application.add_routes([web.put("/transfers/{id}", bank.put), web.get("/transfers/{id}", bank.get)])
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    await in_thread(make_processor, tenant, "bank", kind="bank", url=f"http://127.0.0.1:{port}")
    yield bank
    await runner.cleanup()


async def test_the_example_of_a_processor_books_declines_and_looks_up(api: Api, bank: Bank):
    async with at_work():
        paid = await api.pay("19.90")
        declined = await api.pay("500.00")
        assert (await api.until(paid["correlationId"], "succeeded", "failed"))["status"] == "succeeded"
        assert (await api.until(declined["correlationId"], "succeeded", "failed"))["status"] == "failed"

        bank.loses_answer = True
        unclear = await api.pay("7.00")
        await api.until(unclear["correlationId"], "succeeded")

    found = await api.detail(unclear["correlationId"])
    assert [one["code"] for one in found["attempts"]][:1] == ["http_504"]
    assert bank.transfers[paid["correlationId"]] == {"amount": 1990, "currency": "BRL"}
    assert len(bank.transfers) == 2 and all(UUID(one) for one in bank.transfers)


async def test_the_example_of_a_page_shows_the_tenants_payments_and_no_others(
    server: str, tenant, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(navigation, "_entries", dict(navigation._entries))
    page = module("payments.pages.largest", block("python", '"""The page of a tenant'), tmp_path)
    monkeypatch.setattr(payments.pages, "largest", page, raising=False)
    routes = module("payments.largest_urls", block("python", "from django.urls import path"), tmp_path)
    (tmp_path / "payments").mkdir()
    (tmp_path / "payments" / "largest.html").write_text(block("django", "{% extends"))
    monkeypatch.setattr(engines["django"].engine, "dirs", [*engines["django"].engine.dirs, tmp_path])
    monkeypatch.setattr(registry.urls, "urlpatterns", [*routes.pages, *registry.urls.urlpatterns])
    clear_url_caches()

    olga = await in_thread(make_person, tenant=tenant, role="viewer")
    mine = str((await in_thread(make_payment, tenant, amount=123_456)).correlation_id)
    other = str((await in_thread(lambda: make_payment(make_tenant(), amount=999_999))).correlation_id)
    try:
        async with Person(server) as member:
            member.session.cookie_jar.update_cookies(await in_thread(session_of, olga), URL(server))
            text = await member.opens("/largest")
    finally:
        clear_url_caches()

    assert member.code == 200
    assert mine in text and "1,234.56" in text and 'href="/largest' in text
    assert other not in text


async def test_the_example_of_a_source_of_attention_says_what_needs_somebody(tenant, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(attention, "_sources", {})
    module("payments.billing.trials", block("python", '"""Source of attention: trials'), tmp_path)
    assert await attention.items([tenant.pk]) == []

    def begin() -> None:
        plan = Plan.objects.create(slug="basic", name="Basic", price=100)
        soon = timezone.now() + timedelta(days=1)
        Subscription.objects.create(tenant=tenant, plan=plan, status=Paid.TRIALING, trial_end=soon)

    await in_thread(begin)
    [item] = await attention.items([tenant.pk])
    assert (item.name, item.sentence) == ("billing.trials", "1 trial ends within three days.")
    assert await attention.items([tenant.pk + 1]) == []
    [same] = await attention.items(None)
    assert same.count == 1


# -- An alert rule ---------------------------------------------------------------------------------------------


def test_the_rule_of_the_example_is_registered_and_its_metric_exists(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rules, "_rules", {})

    exec(block("python", '"""Alerts about trials.'), {})

    [rule] = rules.rules()
    assert rule.name == "billing.refused"
    assert rule.condition.metric == "registry_http_requests_total"
    assert metrics.REQUESTS._name + "_total" == rule.condition.metric
