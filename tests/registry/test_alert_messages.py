"""Messages about alerts as they arrive: a signed webhook at a real server, an e-mail, retries, and what is given up."""

import json
import re
import socket
import threading
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.management import call_command
from django.core.management.base import CommandError
from pytest_httpserver import HTTPServer
from standardwebhooks import Webhook
from werkzeug import Request, Response

from registry.models import Alert, AlertMessage
from registry.operators.alerts import messages as made_of
from registry.operators.alerts import sending, store
from registry.operators.alerts.states import FLAPPING
from registry.operators.attention import Severity
from tests.attending import named
from tests.conftest import eventually
from tests.registry.alerting import evaluator, messages, rule, steered

DOCUMENT = Path(__file__).parents[2] / "docs" / "operators" / "alerts.md"
SECRET = "whsec_" + "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0"


class Receiver:
    """A webhook receiver: verifies what arrives, and answers as told."""

    def __init__(self, server: HTTPServer) -> None:
        self.verified: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.status = 204
        self.may_answer = threading.Event()
        self.may_answer.set()
        server.expect_request("/alerts", method="POST").respond_with_handler(self._take)

    def _take(self, request: Request) -> Response:
        self.ids.append(request.headers["webhook-id"])
        self.verified.append(Webhook(SECRET).verify(request.get_data(), dict(request.headers)))
        self.may_answer.wait(10)
        return Response(status=self.status)


@pytest.fixture
def receiver(httpserver: HTTPServer, settings) -> Receiver:
    settings.ALERT_WEBHOOK_URL = httpserver.url_for("/alerts")
    settings.ALERT_WEBHOOK_SECRET = SECRET
    return Receiver(httpserver)


@pytest.fixture
def mailbox(settings, mailoutbox) -> list[Any]:
    settings.EMAIL_URL = "smtp://localhost"
    settings.ALERT_EMAIL = ["olga@example.com", "paul@example.com"]
    return mailoutbox


async def all_settled() -> bool:
    return all(message.due_at is None for message in await messages())


async def fire(scope: str = "service") -> None:
    """An alert that fires, until its messages are sent."""
    with steered(rule(scope=scope)) as gauge:
        gauge.set(9, "a")
        gauge.set(7, "b")
        await evaluate_and_send(scope)


async def evaluate_and_send(scope: str = "service") -> None:
    one = evaluator(scope)
    await one.evaluate()
    if one._sending:
        await one._sending


# -- What arrives ---------------------------------------------------------------------------------------------------------


async def test_an_alert_arrives_as_a_signed_webhook_and_as_an_email(receiver: Receiver, mailbox):
    await fire()

    [event], [letter] = receiver.verified, mailbox
    [about] = event["data"]["alerts"]
    assert (event["type"], about["rule"], about["status"]) == ("alerts.changed", "steered.high", "firing")
    assert about["samples"] == [{"labels": {"part": "a"}, "value": 9}, {"labels": {"part": "b"}, "value": 7}]
    assert letter.to == ["olga@example.com", "paul@example.com"]
    assert letter.subject == "[Registry] firing: steered.high (critical)"
    assert (
        "FIRING critical: steered.high\nSomething is too high.\nValue: 9 of max(steered) > 5\n  9 part=a\n"
        in letter.body
    )
    assert {message.message_id for message in await messages()} == set(receiver.ids)
    assert await all_settled()


async def test_the_example_of_the_documents_has_the_fields_of_what_arrives(receiver: Receiver):
    await fire("host")
    await evaluate_and_send()

    [example] = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(), re.S)]
    [event] = receiver.verified
    assert shape(example) == shape(event)


def shape(value: Any) -> Any:
    """The names of all fields, and the kinds of their values; labels are any."""
    if isinstance(value, dict):
        return {key: "labels" if key == "labels" else shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, (int, float)) else type(value).__name__


async def test_a_message_that_is_refused_is_sent_again_with_the_same_id(receiver: Receiver):
    receiver.status = 500
    await fire()
    [first] = await messages()
    await AlertMessage.async_objects.aupdate(due_at=datetime.now(UTC))
    receiver.status = 204
    await evaluate_and_send()

    [second] = await messages()
    assert (first.error, first.attempts, first.sent_at) == ("it answered 500", 1, None)
    assert first.due_at - first.created_at > timedelta(seconds=sending.WAITS[0] - 1)
    assert (second.error, second.attempts, second.due_at) == ("", 2, None)
    assert receiver.ids == [first.message_id] * 2
    assert receiver.verified[0] == receiver.verified[1]


async def test_waits_grow_and_after_a_day_a_message_is_given_up_and_needs_attention(receiver: Receiver):
    receiver.status = 500
    await fire()
    waits = []
    for _ in range(len(sending.WAITS) + 1):
        [message] = await messages()
        waits.append(round((message.due_at - datetime.now(UTC)).total_seconds(), -1))
        claimed = message.due_at
        await sending.attempt(message)
        await store.save_attempt(message, claimed)
    late = await named("alerts.messages")
    await AlertMessage.async_objects.aupdate(created_at=datetime.now(UTC) - timedelta(minutes=6))
    waiting = await named("alerts.messages")
    await AlertMessage.async_objects.aupdate(
        created_at=datetime.now(UTC) - sending.GIVE_UP_AFTER, due_at=datetime.now(UTC)
    )
    await evaluate_and_send()

    [message], [item] = await messages(), await named("alerts.messages")
    assert waits == [*sending.WAITS, sending.WAITS[-1]]
    assert late == []
    assert [one.severity for one in waiting] == [Severity.WARNING]
    assert (message.due_at, message.given_up_at is not None) == (None, True)
    assert item.severity is Severity.CRITICAL
    assert item.sentence == "1 message about alerts did not arrive by webhook. The last error: it answered 500."


async def test_a_receiver_that_cannot_be_reached_delays_no_email(settings, mailbox):
    settings.ALERT_WEBHOOK_URL, settings.ALERT_WEBHOOK_SECRET = "http://127.0.0.1:1/", SECRET
    await fire()

    found = {message.channel: message for message in await messages()}
    assert found["email"].sent_at
    assert not found["webhook"].sent_at
    assert found["webhook"].error
    assert len(mailbox) == 1


async def test_a_receiver_that_does_not_answer_delays_later_emails_by_one_attempt(settings, mailbox, monkeypatch):
    monkeypatch.setattr(sending, "SEND_WITHIN", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.ALERT_WEBHOOK_URL = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        settings.ALERT_WEBHOOK_SECRET = SECRET
        for message in [one for _ in range(5) for one in made_of.test(datetime.now(UTC))]:
            await message.async_save()
        await evaluate_and_send()

    attempts = sorted(message.attempts for message in await messages() if message.channel == "webhook")
    assert attempts == [0, 0, 0, 0, 1]
    assert len(mailbox) == 5


async def test_an_attempt_that_ends_after_another_process_claimed_the_message_changes_nothing(receiver: Receiver):
    [made] = made_of.test(datetime.now(UTC))
    await made.async_save()
    now = datetime.now(UTC)
    slow = await store.claim_message(AlertMessage.Channel.WEBHOOK, now)
    nobody = await store.claim_message(AlertMessage.Channel.WEBHOOK, now)
    quick = await store.claim_message(AlertMessage.Channel.WEBHOOK, now + store.CLAIM)
    for one, at in ((quick, now + 2 * store.CLAIM), (slow, now + store.CLAIM)):
        receiver.status = 204 if one is quick else 500
        await sending.attempt(one)
        await store.save_attempt(one, at)

    [message] = await messages()
    assert nobody is None
    assert (message.sent_at is not None, message.due_at, message.error) == (True, None, "")


async def test_a_message_from_before_the_clock_was_set_back_is_sent(receiver: Receiver):
    [made] = made_of.test(datetime.now(UTC) + timedelta(hours=2))
    await made.async_save()
    await evaluate_and_send()

    assert receiver.ids == [made.message_id]


async def test_a_mail_server_that_is_away_is_tried_again(settings):
    settings.EMAIL_URL, settings.ALERT_EMAIL = "smtp://127.0.0.1:1", ["olga@example.com"]
    settings.MAILERS = {
        "default": {
            "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
            "OPTIONS": {"host": "127.0.0.1", "port": 1},
        }
    }
    await fire()

    [message] = await messages()
    assert (message.sent_at, message.error) == (None, "the mail server did not take it; the log says why")
    assert message.due_at


async def test_without_a_channel_no_message_is_made():
    await fire()

    assert await messages() == []


async def test_two_processes_send_a_message_once(receiver: Receiver):
    with steered(rule(scope="service")) as gauge:
        gauge.set(9)
        pair = [evaluator("service"), evaluator("service")]
        for one in pair:
            await one.evaluate()
        await eventually(all_settled)
        for one in pair:
            await one.close()

    assert len(receiver.ids) == 1


# -- The message itself -----------------------------------------------------------------------------------------------------


async def test_many_alerts_are_one_email_with_the_most_urgent_first(mailbox):
    added = [
        rule(name=f"steered.{name}", severity=severity, scope="service")
        for name, severity in (("a", Severity.NOTICE), ("b", Severity.CRITICAL), ("c", Severity.WARNING))
    ]
    with steered(*added) as gauge:
        gauge.set(9)
        await evaluate_and_send()

    [letter] = mailbox
    assert letter.subject == "[Registry] 3 firing"
    assert re.findall(r"FIRING (\w+): (\S+)", letter.body) == [
        ("critical", "steered.b"), ("warning", "steered.c"), ("notice", "steered.a"),
    ]  # fmt: skip


@pytest.mark.parametrize(("recent", "said"), [(0, False), (1, False), (FLAPPING, True)])
async def test_an_email_says_that_an_alert_changes_often_once_its_messages_are_held_back(
    recent: int, said: bool, mailbox
):
    now = datetime.now(UTC)
    alert = Alert(
        rule="spill.waiting", status=Alert.Status.RESOLVED, severity=Severity.CRITICAL, since=now, resolved_at=now
    )
    [letter] = made_of.about([made_of.Told(alert, recent)], now)
    assert (f"It changes often: {recent} messages within the last hour." in letter.body) is said


async def test_the_message_leads_to_the_section_of_the_runbook(settings, receiver: Receiver):
    settings.REGISTRY_URL = "https://pay.example.com"
    with steered(rule(scope="service", runbook="workers")) as gauge:
        gauge.set(9)
        await evaluate_and_send()

    [event] = receiver.verified
    assert event["data"]["service"] == "https://pay.example.com"
    assert event["data"]["alerts"][0]["runbook"] == "https://pay.example.com/admin/runbook/#workers"


# -- The command ------------------------------------------------------------------------------------------------------------


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("alerts", *arguments, stdout=out)
    return out.getvalue()


async def test_the_command_lists_what_is_open(receiver: Receiver):
    nothing = await sync_to_async(run)()
    await fire("host")

    assert nothing == "No alert is pending or firing.\n"
    assert await sync_to_async(run)() == (
        "critical steered.high on here: firing. Something is too high. On here. Value: 9 (part=a), 7 (part=b).\n"
    )
    [listed] = json.loads(await sync_to_async(run)("--json"))
    assert (listed["rule"], listed["host"], listed["value"], listed["silencedUntil"]) == (
        "steered.high",
        "here",
        9,
        None,
    )


def test_the_command_sends_a_test_message_to_every_channel(receiver: Receiver, mailbox):
    assert run("--test") == "email: sent\nwebhook: sent\n"
    assert [event["type"] for event in receiver.verified] == [made_of.TEST]
    assert [letter.subject for letter in mailbox] == ["[Registry] Test of the alerts"]


def test_the_command_fails_when_a_channel_does(receiver: Receiver):
    receiver.status = 403

    with pytest.raises(SystemExit):
        run("--test")


def test_the_command_says_when_no_channel_is_set():
    with pytest.raises(CommandError, match="no channel is set"):
        run("--test")
