"""Logs: one JSON object per event with request, tenant and payment, and never a secret, whatever goes wrong."""

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import uvicorn
from django.urls import get_resolver
from hypothesis import example, given
from hypothesis import settings as limits
from hypothesis import strategies as some

from payments.books import queries
from payments.processors import KINDS
from payments.processors.base import Result
from payments.processors.stripe.processor import StripeProcessor
from registry import redaction
from registry.data import database, db_breaker, faults
from registry.servers import child, postgres
from registry.telemetry import logs
from tests.bed.stripe import sandbox_stripe
from tests.conftest import Api, at_work, eventually
from tests.depth import deep
from tests.factories import in_thread, make_processor
from tests.payments.test_stripe_processor import account, order
from tests.registry.conftest import Lines
from tests.servers import other_pool

PROJECT = Path(__file__).parents[2]


# -- Form ----------------------------------------------------------------------------------------------------


def test_a_line_is_one_json_object_with_time_level_and_logger(lines: Lines):
    logging.getLogger("some.room").warning("two\nlines of %s", "text", extra={"count": 3})

    [event] = lines.events
    assert (event["event"], event["level"], event["logger"], event["count"]) == (
        "two\nlines of text",
        "warning",
        "some.room",
        3,
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", event["timestamp"])


async def test_an_error_in_a_request_is_logged_with_its_request_id_tenant_and_payment(
    api: Api, tenant, lines, monkeypatch
):
    async def broken(*_: object) -> None:
        raise ValueError("unforeseen")

    monkeypatch.setattr(queries, "status_of", broken)
    correlation_id = str(uuid4())

    async with api.get(f"/payments/{correlation_id}/status") as response:
        request_id = response.headers["X-Request-Id"]

    event = next(e for e in lines.events if e["event"] == "unhandled error")
    assert (event["request_id"], event["tenant"], event["payment"]) == (request_id, tenant.slug, correlation_id)
    assert "ValueError: unforeseen" in event["exception"]


async def test_an_error_in_a_worker_is_logged_with_tenant_and_payment(api: Api, tenant, lines, monkeypatch):
    async def broken(*_: object) -> None:
        logging.getLogger("payments.processors").error("the processor is odd")
        raise ValueError("unforeseen")

    await in_thread(make_processor, tenant)
    monkeypatch.setattr(KINDS["sandbox"], "send", broken)
    payment = await api.pay()

    async with at_work():
        await eventually(lambda: "the processor is odd" in lines.text)

    event = next(e for e in lines.events if e["event"] == "the processor is odd")
    assert (event["tenant"], event["payment"]) == (tenant.pk, payment["correlationId"])


# -- Secrets --------------------------------------------------------------------------------------------------

KEY = "rk_0123456789ab_c2VjcmV0LXNlY3JldC1zZWNyZXQ"
TOKEN = "1a.QUJDREVGR0hJSktMTU5P"
RESET = "diwawt-c91d5d22512b6665d283677e6636c0e9"
INVITED = "WzEsMl0:1wLm3x:" + "Q" * 43
SECRETS = {
    "a key": (f"called with {KEY}", KEY[-20:]),
    "a header": (f"headers: Authorization: Bearer {KEY}", KEY[-20:]),
    "a bearer that is no key": ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
    "basic": ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
    "a database's address": ("postgres://registry:hush-hush@db.example/registry", "hush-hush"),
    "an address with an at sign in the password": ("postgres://registry:hu@sh@db.example/registry", "sh@db"),
    "an address without a user": ("redis://:hush-hush@cache.example/0", "hush-hush"),
    "a page's address": (f"Not Found: /payments/x/live?tenant=a&token={TOKEN}", TOKEN),
    "an address within an address": (f"/login?next=%2Fpayments%2Fx%2Flive%3Ftoken%3D{TOKEN}%26tenant%3Da", TOKEN),
    "the same once more": (f"next=%252Fpayments%252Fx%252Flive%253Ftoken%253D{TOKEN}", TOKEN),
    "a token by itself": (f"the token {TOKEN} is of no payment", TOKEN),
    "an invitation": (f"Method Not Allowed: /invitation/{INVITED}", INVITED[-43:]),
    "a bad invitation": ("Not Found: /invitation/guessed-badly", "guessed-badly"),
    "an invitation within an address": ("/login?back=1&next=%2Finvitation%2Fguessed-badly", "guessed-badly"),
    "a link for a new password": (f"Unprocessable Entity: /password/Nw/{RESET}", RESET),
    "a link for a new password within an address": (f"/login?back=1&next=%2Fpassword%2FNw%2F{RESET}", RESET),
    "the token of a new password": (f"a token {RESET} was used", RESET),
    "an invitation as a parameter": (f"see /pages/{INVITED.replace(':', '%3A')}", INVITED[-43:]),
    "a Referer": (f"Referer checking failed - https://x.example/live?token={TOKEN} does not match", TOKEN),
    "a parameter of a name that nobody thought of": ("POST https://shop.example/hook?sig=hushhush&limit=5", "hushhush"),
    "JSON within JSON": ('{"body": "{\\"token\\": \\"hush hush\\"}"}', "hush"),
    "a password of several words": ('{"password": "hush hush, quiet\\" too"}', "quiet"),
    "a row that PostgreSQL repeats": ("DETAIL:  Failing row contains (7, hush-hush, null).", "hush-hush"),
    "a session": ("UPDATE django_session WHERE session_key = 'hushhush'", "hushhush"),
    "libpq's words": ("connection to host=db password=hush-hush failed", "hush-hush"),
    "a link's token": (f'"WebSocket /ws/payments/x?token={TOKEN}" [accepted]', TOKEN),
    "JSON": ('{"password": "hush-hush", "api_key": "hush-too"}', "hush-"),
    "Python": ("{'secret': 'hush-hush'}", "hush-hush"),
    "a live key of Stripe's": ("No such key: sk_live_hushhush", "hushhush"),
    "a test key of Stripe's": ("['sk_test_51hushhush']", "51hushhush"),
    "a restricted key of Stripe's": ("with rk_live_hushhush", "hushhush"),
    "a webhook's secret": ("signed with whsec_hush/hush+hush=", "hush"),
    "what a payer's page confirms with": ("pi_3Nabc_secret_hushhush", "hushhush"),
    "a cookie": ("Cookie: sessionid=hushhushhush; csrftoken=hushtoo", "hush"),
}


@pytest.mark.parametrize(("text", "secret"), SECRETS.values(), ids=SECRETS.keys())
def test_secrets_in_messages_arguments_fields_and_errors_are_redacted(lines: Lines, text: str, secret: str):
    log = logging.getLogger("some.room")

    log.warning(text)
    log.warning("with %s", text)
    log.warning("a field", extra={"detail": {"deep": [text]}})
    try:
        raise ValueError(text)
    except ValueError:
        log.exception("an error")

    assert len(lines.events) == 4
    assert secret not in lines.text


@pytest.mark.parametrize(
    "name", ["password", "Authorization", "api_key", "apiKey", "secret_key", "token", "cardNumber", "Cookie"]
)
def test_fields_with_secret_names_are_redacted_at_any_depth(lines: Lines, name: str):
    logging.getLogger("some.room").warning("x", extra={"outer": [{name: "hush-hush"}], name: "hush-hush"})

    assert "hush-hush" not in lines.text
    assert "[redacted]" in lines.text


@example(secret="postgres")
@given(secret=some.text(some.characters(categories=["L", "N"], max_codepoint=127), min_size=8, max_size=40))
@limits(max_examples=deep(20, 600), deadline=None)
def test_keys_are_redacted_anywhere(secret: str):
    key = f"rk_0123456789ab_{secret}"

    shown = redaction.redact({"a": [f"x{key}y", {"b": (f"Bearer {key}", f"postgres://u:{secret}@h/d")}]})

    around = re.compile(r"rk_0123456789ab_|\[redacted\]|postgres://")  # a secret may be a word of what stands around it
    assert secret not in around.sub(" ", str(shown))


async def test_logs_of_normal_operation_and_of_failures_hold_no_secret(api: Api, tenant, lines, settings, monkeypatch):
    """A payment's whole way, wrong keys, broken bodies, and a database that is away: then the log is searched."""
    monkeypatch.setattr(
        faults._LastLine, "at", -faults.LOG_INTERVAL
    )  # what other tests have said keeps this one's quiet
    logging.getLogger().setLevel("DEBUG")
    try:
        await in_thread(make_processor, tenant, options={"delay": 0})
        async with at_work():
            payment = await api.pay()
            await api.until(payment["correlationId"], "succeeded")
        token = payment["liveUrl"].partition("token=")[2]
        async with api.session.ws_connect(f"/ws/payments/{payment['correlationId']}?token={token}"):
            pass
        wrong = "rk_ffffffffffff_d3Jvbmctd3Jvbmctd3Jvbmc"
        async with api.get("/payments", headers={"Authorization": f"Bearer {wrong}"}):
            pass
        async with api.post("/payments", data=b'{"amount": "' + api.key.encode()):
            pass
        monkeypatch.setattr(database.settings, "DB_POOL_TIMEOUT", 0.2)
        async with other_pool(port=1, password="hush-hush"):
            async with api.get(f"/payments/{payment['correlationId']}/status"):
                pass
            assert not await db_breaker.current().is_available()  # and the log says so
    finally:
        logging.getLogger().setLevel(settings.LOG_LEVEL)

    assert lines.text
    for secret in (api.key.split("_", 2)[2], wrong.split("_", 2)[2], token, "hush-hush", settings.SECRET_KEY):
        assert secret not in lines.text


def test_a_failed_command_prints_no_password(tmp_path: Path):
    url = "postgres://registry:hush-hush@127.0.0.1:1/none"
    done = subprocess.run(
        [sys.executable, "manage.py", "migrate", "--check"],
        cwd=PROJECT, capture_output=True, text=True, timeout=60,
        env={**os.environ, "DATABASE_URL": url},
    )  # fmt: skip

    assert done.returncode != 0
    assert done.stderr
    assert "hush-hush" not in done.stdout + done.stderr


@pytest.mark.parametrize(("text", "secret"), SECRETS.values(), ids=SECRETS.keys())
def test_redacting_twice_changes_nothing_more(text: str, secret: str):
    """`up` cleans lines that its parts have cleaned already."""
    once = redaction.redact(json.dumps({"event": redaction.redact(text)}))

    assert redaction.redact(once) == once
    assert json.loads(once) == {"event": redaction.redact(text)}


class Opaque:
    """An object that a library logs, with a secret in its repr."""

    def __repr__(self) -> str:
        return f"<ASGIRequest: POST '/payments/x/live?token={TOKEN}'>"


def test_an_object_is_logged_as_its_repr_without_secrets(lines: Lines):
    logging.getLogger("some.room").warning("x", extra={"request": Opaque(), "deep": [{"more": Opaque()}]})

    assert TOKEN not in lines.text
    assert lines.text.count("<ASGIRequest: POST '/payments/x/live?token=[redacted]'>") == 2


def test_the_readable_parts_of_an_address():
    text = "GET /payments?tenant=shop&status=queued&limit=5&cursor=abc HTTP/1.1"

    assert redaction.redact(text) == text.replace("abc", "[redacted]")


@pytest.mark.parametrize("value", [None, True, 5, 1.5, "plain words: 12:30:45, 3.5 s", "0123456789abcdef", {"a": [1]}])
def test_other_text_is_not_redacted(value: object):
    assert redaction.redact(value) == value


def test_every_path_that_holds_a_secret_is_known():
    secret = re.compile(r"(\w+)/(?:<\w+:\w+>/)*<\w+:(?:token|secret|key|code)>")

    assert {found[1] for route in all_routes() if (found := secret.search(route))} == set(redaction.SECRET_PATHS)


def all_routes() -> Iterator[str]:
    patterns = [("", pattern) for pattern in get_resolver().url_patterns]
    while patterns:
        prefix, pattern = patterns.pop()
        route = prefix + str(pattern.pattern)
        patterns += [(route, inner) for inner in getattr(pattern, "url_patterns", [])]
        yield route


async def test_refused_links_and_invitations_are_not_logged(server: str, lines):
    """The addresses of refused calls: Django logs each with its request."""
    token, invited = "1a.QUJDREVGR0hJSktMTU5P", "guessed-badly"
    addresses = [f"/payments/{uuid4()}/{page}?token={token}" for page in ("live", "look")]
    addresses += [f"/invitation/{invited}", f"/password/Nw/{RESET}"]
    headers = {"Accept": "text/html", "Referer": f"http://elsewhere.example/?token={token}", "Origin": "null"}
    async with Api(server) as visitor:
        for method in ("GET", "POST", "PUT", "DELETE"):
            for address in addresses:
                async with visitor.session.request(method, address, headers=headers) as response:
                    assert 400 <= response.status < 500

    assert lines.text.count('"status_code": 4') >= 8
    assert [secret for secret in (token, invited, RESET) if secret in lines.text] == []


def test_output_of_a_part_outside_its_log_is_redacted(capfdbinary):
    child.write_line(
        "web", f'{{"path": "/payments/x/live?token={TOKEN}", "other": "\udcff"}}'.encode(errors="surrogateescape")
    )

    said = capfdbinary.readouterr().err
    assert TOKEN.encode() not in said
    assert said == b'[web] {"path": "/payments/x/live?token=[redacted]", "other": "\xff"}\n'


@pytest.fixture
def logging_kept() -> Iterator[None]:
    """A test may configure logging anew; afterwards everything is as it was."""
    loggers = [
        logging.getLogger(),
        *(logging.getLogger(name) for name in ("uvicorn", "uvicorn.error", "uvicorn.access")),
    ]
    before = [(one, one.handlers, one.level, one.propagate) for one in loggers]
    yield
    for one, handlers, level, propagate in before:
        one.handlers, one.propagate = handlers, propagate
        one.setLevel(level)


def test_a_server_that_is_started_by_hand_logs_through_our_formatter(logging_kept, settings, capfd):
    """`uvicorn registry.asgi:application` gives its loggers handlers before it imports the service."""
    uvicorn.Config("registry.asgi:application").configure_logging()

    logs.configure_logging(settings.LOGGING)
    logging.getLogger("uvicorn.error").info('"WebSocket /ws/payments/x?token=%s" [accepted]', TOKEN)
    logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', "1", "GET", f"/x?token={TOKEN}", "1.1", 200)

    said = capfd.readouterr()
    assert "/ws/payments/x?token=[redacted]" in said.err
    assert TOKEN not in said.err + said.out


# -- What others say --------------------------------------------------------------------------------------------


async def test_stripes_library_logs_no_successful_requests(lines: Lines):
    async with sandbox_stripe() as stripe, StripeProcessor() as processor:
        outcome = await processor.send(order("pm_card_visa"), account(stripe))

    assert (outcome.result, logging.getLogger().level) == (Result.BOOKED, logging.INFO)
    assert [event for event in lines.events if event["logger"] == "stripe"] == []


# -- How long ---------------------------------------------------------------------------------------------------


def test_retention_of_logs_is_documented_and_own_log_files_are_rotated():
    policy = (PROJECT / "docs" / "operators" / "logs.md").read_text()

    for word in ("days", "journald", "logrotate", "LOG_LEVEL", "postgresql-%a.log", "secrets"):
        assert word in policy
    assert postgres.POSTGRES_SETTINGS["log_filename"] == "postgresql-%a.log"
    assert postgres.POSTGRES_SETTINGS["log_truncate_on_rotation"] == "on"
