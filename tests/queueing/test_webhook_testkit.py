"""The test kit for receivers: a correct one passes, and each fault has its failed check."""

import asyncio
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from standardwebhooks import Webhook, WebhookVerificationError

from queueing.outbound import testkit
from queueing.outbound.signing import new_secret
from registry.http.client import BadAddress
from tests.bed.receiver import Receiver
from tests.bed.wire import Reset, response

SECRET = new_secret()


@pytest.fixture
async def receiver():
    async with Receiver() as found:
        found.answers_by(verifying)
        yield found


def verifying(heard):
    """What the documentation tells tenants to do."""
    try:
        Webhook(SECRET).verify(heard.body, heard.headers)
    except WebhookVerificationError:
        return response(401, b"bad signature")
    return response(204)


async def results(receiver: Receiver) -> dict[str, bool]:
    return {one.name: one.passed async for one in testkit.run(receiver.url, SECRET)}


async def test_a_receiver_that_verifies_as_the_library_does_passes_every_check(receiver):
    found = await results(receiver)

    assert list(found) == [check.name for check in testkit.checks()]
    assert [name for name, passed in found.items() if not passed] == []


async def test_a_receiver_that_accepts_everything_fails_the_checks_of_refusals(receiver):
    receiver.answers(200)

    found = await results(receiver)

    assert [name for name, passed in found.items() if not passed] == [
        "a signature by another secret",
        "no signature at all",
        "a body that was altered",
        "another message's id",
        "an hour old",
        "an hour ahead",
    ]


async def test_a_receiver_that_fails_on_repeated_messages_fails_that_check(receiver):
    seen: set[str] = set()

    def choose(heard):
        answer = response(409) if heard.headers.get("webhook-id") in seen else verifying(heard)
        seen.add(heard.headers.get("webhook-id", ""))
        return answer

    receiver.answers_by(choose)

    found = await results(receiver)

    assert [name for name, passed in found.items() if not passed] == ["the same message twice"]


async def test_a_receiver_that_refuses_messages_out_of_order_fails_that_check(receiver):
    receiver.answers_by(lambda heard: response(409) if heard.data["sequence"] == 1 else verifying(heard))

    found = await results(receiver)

    assert [name for name, passed in found.items() if not passed] == ["a payment's events out of order"]


async def test_redirects_fail(receiver):
    receiver.answers(308, b"", location="/hook/")

    found = await results(receiver)

    assert found["no redirects"] is False


async def test_slow_answers_fail(receiver, monkeypatch):
    monkeypatch.setattr(testkit, "ANSWER_WITHIN", 0.05)

    async def slowly(heard):
        await asyncio.sleep(0.06)
        return verifying(heard)

    receiver.answers_by(slowly)

    found = await results(receiver)

    assert [name for name, passed in found.items() if not passed] == ["quick answers"]


async def test_without_a_receiver_the_first_check_fails_and_is_the_last(receiver):
    receiver.answers_by(lambda _: Reset())

    found = await results(receiver)

    assert found == {"a message, well signed": False}


async def test_private_addresses_are_not_called(receiver, settings):
    settings.WEBHOOK_ALLOW_PRIVATE = False

    [only] = [one async for one in testkit.run(receiver.url, SECRET)]

    assert only.happened == "127.0.0.1 is not a public address"
    assert receiver.calls == 0


async def test_an_invalid_address_is_refused():
    with pytest.raises(BadAddress):
        [one async for one in testkit.run("http://user:x@127.0.0.1/", SECRET)]


@pytest.mark.parametrize(
    ("text", "good"),
    [(SECRET, True), ("whsec_", False), ("", False), (SECRET[6:], False), ("whsec_!!!", False), ("whsec_ü", False)],
    ids=["ours", "empty", "nothing", "without prefix", "no base64", "not ascii"],
)
def test_the_form_of_a_secret_is_checked(text: str, good: bool):
    assert testkit.is_secret(text) is good


# -- The command -------------------------------------------------------------------------------------------------


async def command(*arguments: str) -> str:
    out = StringIO()
    await asyncio.to_thread(call_command, "webhook", "test", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


async def test_the_command_succeeds_with_a_correct_receiver(receiver):
    out = await command(receiver.url, "--secret", SECRET)

    assert out.count("✓") == len(testkit.checks())
    assert "It behaves." in out


async def test_the_command_ends_with_1_where_a_check_fails(receiver):
    receiver.answers(200)

    with pytest.raises(CommandError, match="6 of 14 checks failed") as error:
        await command(receiver.url, "--secret", SECRET, "--json")

    assert error.value.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["http://169.254.169.254/"], "is not a public address"),
        (["ftp://shop.example/"], "begins with http"),
        (["http://127.0.0.1:9/", "--secret", "mine"], "--secret wants whsec_"),
    ],
    ids=["metadata", "no http", "no secret"],
)
async def test_the_command_explains_why_it_cannot_call_an_address(arguments, words):
    with pytest.raises(CommandError, match=words):
        await command(*arguments)
