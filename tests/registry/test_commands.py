"""The commands of contract section 1: their output, and errors of one sentence."""

import json
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command

from payments.demo import shop
from payments.management.commands import demo
from payments.models import Endpoint, Processor
from registry.data import database
from registry.data.loop import sync_twin
from registry.errors import Unauthorized
from registry.models import ApiKey, AuditEntry, Tenant
from registry.tenants import access
from tests.factories import make_processor, make_tenant

pytestmark = pytest.mark.usefixtures("lean_commands")


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue().strip()


def run_json(*arguments: str):
    return json.loads(run(*arguments, "--json"))


def refused(*arguments: str) -> str:
    with pytest.raises(CommandError) as error:
        run(*arguments)
    return str(error.value)


def whose(key: str) -> access.Principal | None:
    """Whom a process that never saw the key takes it for."""
    try:
        return authenticate(f"Bearer {key}", keyless=False)
    except Unauthorized:
        return None


authenticate = sync_twin(access.authenticate)


# -- tenant ------------------------------------------------------------------------------------------


def test_a_tenant_is_made_with_a_key_that_works():
    made = run_json("tenant", "create", "acme", "--name", "Acme Ltd", "--currency", "usd", "--open", "--mode", "live")

    tenant = Tenant.objects.get()
    assert list(made) == ["tenant", "apiKey"]
    assert (tenant.slug, tenant.name, tenant.currency, tenant.open, tenant.mode) == (
        "acme",
        "Acme Ltd",
        "USD",
        True,
        "live",
    )
    principal = whose(made["apiKey"])
    assert principal is not None
    assert (principal.slug, principal.scopes) == ("acme", {"read", "write"})


def test_the_text_output_shows_the_key_once():
    words = run("tenant", "create", "acme")

    assert "Tenant acme is ready" in words
    assert "rk_" in words


def test_creating_a_tenant_twice_is_an_error():
    run("tenant", "create", "acme")

    assert refused("tenant", "create", "acme") == "there is a tenant 'acme' already"
    assert ApiKey.objects.count() == 1


@pytest.mark.parametrize("slug", ["Acme", "a b", "-a", "x" * 64, "a/b"])
def test_an_invalid_slug_is_refused_with_the_rule(slug):
    assert "lower-case letters, digits and hyphens" in refused("tenant", "create", "--", slug)
    assert not Tenant.objects.exists()


@pytest.mark.parametrize("currency", ["REAL", "XXX", "ZZZ", "BR"])
def test_an_unknown_currency_is_refused(currency):
    assert "not an ISO 4217 currency" in refused("tenant", "create", "acme", "--currency", currency)
    assert not Tenant.objects.exists()


def test_tenants_are_listed():
    make_tenant("beta")
    make_tenant("alpha", mode="live")

    assert [(t["tenant"], t["mode"]) for t in run_json("tenant", "list")] == [("alpha", "live"), ("beta", "sandbox")]
    assert "alpha" in run("tenant", "list")


def test_the_patience_is_a_setting_of_the_tenant():
    run("tenant", "create", "alpha")
    run("tenant", "create", "beta", "--patience", "1000")

    assert run_json("tenant", "change", "alpha", "--patience", "50") == {"tenant": "alpha", "patience": 50}
    assert [(t["tenant"], t["patience"]) for t in run_json("tenant", "list")] == [("alpha", 50), ("beta", 1000)]
    assert AuditEntry.objects.get(action="tenant.change").detail == {"patience": [300, 50]}
    assert "less than or equal to 60000" in refused("tenant", "change", "alpha", "--patience", "60001")
    assert "greater than or equal to 1" in refused("tenant", "create", "gamma", "--patience", "0")


# -- apikey --------------------------------------------------------------------------------------------


def test_a_key_has_the_scopes_expiry_and_limit_it_was_given():
    make_tenant("acme")

    made = run_json(
        "apikey",
        "create",
        "acme",
        "--scope",
        "read",
        "--name",
        "till",
        "--expires",
        "2099-01-31",
        "--rate-limit",
        "100/second",
    )

    key = ApiKey.objects.get()
    assert (key.scopes, key.name, key.rate_limit) == (["read"], "till", "100/second")
    assert key.expires_at.isoformat() == "2099-01-31T00:00:00+00:00"
    assert made["apiKey"].startswith(f"rk_{made['prefix']}_")
    principal = whose(made["apiKey"])
    assert principal is not None
    assert principal.scopes == {"read"}


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--expires", "2001-01-01", "in the past"),
        ("--expires", "soon", "ISO 8601"),
        ("--rate-limit", "many", "100/second"),
        ("--scope", "root", "invalid choice"),
    ],
)
def test_a_key_with_invalid_options_is_refused(option, value, says):
    make_tenant("acme")

    assert says in refused("apikey", "create", "acme", option, value)
    assert not ApiKey.objects.exists()


def test_a_key_of_an_unknown_tenant_is_refused():
    assert refused("apikey", "create", "nobody") == "there is no tenant 'nobody'; `tenant list` shows all"


def test_a_revoked_key_stops_working_and_can_be_revoked_once():
    make_tenant("acme")
    made = run_json("apikey", "create", "acme")

    run("apikey", "revoke", made["prefix"])

    assert whose(made["apiKey"]) is None
    assert "was revoked before" in refused("apikey", "revoke", made["prefix"])
    assert "there is no key 'nothing'" in refused("apikey", "revoke", "nothing")
    assert AuditEntry.objects.filter(action="apikey.revoke").count() == 1


def test_a_leaked_key_can_be_revoked_by_its_text():
    make_tenant("acme")
    made = run_json("apikey", "create", "acme")

    run("apikey", "revoke", made["apiKey"])

    assert whose(made["apiKey"]) is None


def test_a_rotated_key_has_a_successor_with_the_same_rights():
    make_tenant("acme")
    old = run_json("apikey", "create", "acme", "--scope", "admin", "--name", "till", "--rate-limit", "5/minute")

    new = run_json("apikey", "rotate", old["prefix"])

    assert whose(old["apiKey"]) is None
    principal = whose(new["apiKey"])
    assert principal is not None
    assert (principal.scopes, str(principal.rate_limit)) == ({"admin"}, "5 per 1 minute")
    assert "no usable key" in refused("apikey", "rotate", old["prefix"])


def test_a_key_rotated_with_grace_works_on_for_that_long():
    make_tenant("acme")
    old = run_json("apikey", "create", "acme")

    new = run_json("apikey", "rotate", old["prefix"], "--grace", "3600")

    assert whose(old["apiKey"]) is not None
    assert whose(new["apiKey"]) is not None
    assert ApiKey.objects.get(prefix=old["prefix"]).expires_at is not None


def test_keys_are_listed_without_their_secrets():
    make_tenant("acme")
    made = run_json("apikey", "create", "acme")

    listed = run("apikey", "list", "acme", "--json")

    assert json.loads(listed)[0]["state"] == "usable"
    assert made["apiKey"].split("_", 2)[2] not in listed


# -- processor -------------------------------------------------------------------------------------------


def test_a_processor_is_added_with_fee_and_options():
    make_tenant("acme")

    options = ["--option", "delay=250", "--option", "failing=true", "--option", "note=all right"]
    address = ["--url", "http://processor-default:8080"]
    run("processor", "add", "acme", "default", "--kind", "http", *address, "--fee", "0.05", *options)

    processor = Processor.objects.get()
    assert (processor.name, processor.kind, processor.url) == ("default", "http", "http://processor-default:8080")
    assert str(processor.fee) == "0.050000"
    assert processor.options == {"delay": 250, "failing": True, "note": "all right"}
    assert AuditEntry.objects.get().action == "processor.add"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--kind", "paper"], "there is no kind 'paper'; there are: http, sandbox"),
        (["--kind", "http"], "kind http wants a URL"),
        (["--kind", "http", "--url", "ftp://example.com"], "not an http address"),
        (["--kind", "http", "--url", "http://[oops"], "not an http address"),
        (["--kind", "sandbox", "--fee", "1"], "a share of the amount"),
        (["--kind", "sandbox", "--fee=-0.1"], "a share of the amount"),
        (["--kind", "sandbox", "--fee", "NaN"], "a share of the amount"),
        (["--kind", "sandbox", "--fee", "0.00000001"], "a share of the amount"),
        (["--kind", "sandbox", "--option", "delay"], "--option wants K=V"),
    ],
)
def test_an_invalid_processor_is_refused_with_the_reason(arguments, says):
    make_tenant("acme")

    assert says in refused("processor", "add", "acme", "default", *arguments)
    assert not Processor.objects.exists()


def test_names_of_processors_are_unique_per_tenant():
    make_processor(make_tenant("acme"))
    make_tenant("other")

    assert (
        refused("processor", "add", "acme", "default", "--kind", "sandbox")
        == "acme has a processor named default already"
    )
    run("processor", "add", "other", "default", "--kind", "sandbox")


def test_processors_are_listed_cheapest_first_with_their_breaker():
    tenant = make_tenant("acme")
    dear = make_processor(tenant, "fallback", fee="0.15", options={"token": "s3cret"})
    make_processor(tenant, "default", fee="0.05")
    Endpoint.objects.create(key=dear.endpoint, breaker="open")

    listed = run("processor", "list", "acme", "--json")

    assert [(p["name"], p["fee"], p["breaker"]) for p in json.loads(listed)] == [
        ("default", 0.05, "closed"),
        ("fallback", 0.15, "open"),
    ]
    assert "s3cret" not in listed


def test_a_processor_is_disabled_and_enabled_again():
    make_processor(make_tenant("acme"))

    assert run("processor", "disable", "acme", "default") == "default of acme is disabled."
    assert run("processor", "disable", "acme", "default") == "default of acme was disabled."
    assert not Processor.objects.get().enabled
    run("processor", "enable", "acme", "default")
    assert Processor.objects.get().enabled
    assert "has no processor named gold" in refused("processor", "enable", "acme", "gold")


# -- demo ----------------------------------------------------------------------------------------------------


@pytest.fixture
def data(settings, tmp_path) -> Path:
    settings.REGISTRY_DATA = tmp_path
    return tmp_path


def test_the_demo_is_prepared_once_and_reused(data):
    first = run_json("demo", "--prepare")
    second = run_json("demo", "--prepare", "--url", "http://127.0.0.1:9000/")

    assert list(first) == ["url", "adminUrl", "login", "password", "apiKey"]
    assert first["adminUrl"] == "http://127.0.0.1:8000/admin/"
    assert second == {**first, "url": "http://127.0.0.1:9000", "adminUrl": "http://127.0.0.1:9000/admin/"}
    assert list(Processor.objects.values_list("name", "kind")) == [("default", "sandbox"), ("fallback", "sandbox")]
    assert get_user_model().objects.get(username="operator").check_password(first["password"])
    tenant = Tenant.objects.get()
    assert (tenant.slug, tenant.open, tenant.mode) == ("demo", True, "sandbox")
    assert whose(first["apiKey"]) is not None


def test_the_key_of_the_demo_may_do_all_that_the_documents_show(data):
    first = run_json("demo", "--prepare")
    ApiKey.objects.update(scopes=["read", "write"])  # as the demo of an earlier version made it

    second = run_json("demo", "--prepare")

    assert second["apiKey"] != first["apiKey"]
    assert ApiKey.objects.latest("pk").scopes == ["read", "write", "admin"]
    assert run_json("demo", "--prepare")["apiKey"] == second["apiKey"]


def test_only_its_owner_can_read_the_secrets_of_the_demo(data):
    run("demo", "--prepare")

    assert stat.S_IMODE((data / "demo.json").stat().st_mode) == 0o600


def test_a_lost_file_costs_a_new_key_and_password(data):
    first = run_json("demo", "--prepare")
    (data / "demo.json").write_text("{ half a fi")

    second = run_json("demo", "--prepare")

    assert second["apiKey"] != first["apiKey"]
    assert get_user_model().objects.get().check_password(second["password"])


def test_a_changed_password_stays_and_is_not_printed(data):
    run("demo", "--prepare")
    operator = get_user_model().objects.get()
    operator.set_password("my own choice, thanks")
    operator.save()

    assert run_json("demo", "--prepare")["password"] == ""
    assert get_user_model().objects.get().check_password("my own choice, thanks")


def test_the_demo_leaves_a_live_tenant_alone(data):
    make_tenant("demo", mode="live")

    assert "live money" in refused("demo", "--prepare")
    assert not Processor.objects.exists()


def test_purchases_are_valid_payments():
    for _ in range(300):
        body = shop.purchase()
        whole, cents = body["amount"].split(".")
        assert int(whole) > 0
        assert len(cents) == 2
        assert len(body["metadata"]) <= 50


def test_purchases_come_at_two_to_four_a_second():
    pauses = shop.pauses()
    seconds = sum(next(pauses) for _ in range(5000))

    assert 2 <= 5000 / seconds <= 4


class Till:
    """A service that is away at first, then busy, then takes payments."""

    def __init__(self) -> None:
        self.seen: list[dict] = []
        self.busy_for = 2

    @contextmanager
    def open(self, port: int) -> Iterator[None]:
        till = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = 503  # what is not a payment, such as a message of the demo's queue
                if self.path == "/payments":
                    till.seen.append({**body, "key": self.headers["Authorization"]})
                    status, till.busy_for = (503, till.busy_for - 1) if till.busy_for else (202, 0)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()


def test_the_demo_waits_for_the_service_retries_and_stops_on_sigterm(data, monkeypatch):
    monkeypatch.setattr(demo, "FIRST_WAIT", 0.05)
    till = Till()
    dying = socket.create_server(("127.0.0.1", 0))
    dying.settimeout(20)
    port = dying.getsockname()[1]

    def serve() -> None:
        try:
            with dying:
                dying.accept()[0].close()  # the service goes away under the first payment
            with till.open(port):
                # One that was refused with 503 comes again under its own id.
                wait_for(lambda: len(till.seen) - len({payment["correlationId"] for payment in till.seen}) == 2)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    with ThreadPoolExecutor(1) as threads:
        serving = threads.submit(serve)
        run("demo", "--url", f"http://127.0.0.1:{port}")
        serving.result()

    key = json.loads((data / "demo.json").read_text())["api_key"]
    assert {payment["key"] for payment in till.seen} == {f"Bearer {key}"}


def wait_for(question, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < end
        time.sleep(0.01)


# -- What all of them share --------------------------------------------------------------------------------------


def test_an_unavailable_database_is_one_sentence(monkeypatch, settings):
    settings.DB_POOL_TIMEOUT = 1
    real = database.connection_parameters
    monkeypatch.setattr(database, "connection_parameters", lambda: {**real(), "port": 1})

    said = refused("tenant", "list")

    assert "database" in said
    assert "\n" not in said
