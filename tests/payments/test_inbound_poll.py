"""Polling: events that were never delivered are fetched from the processor's list, each once."""

import json
from datetime import timedelta

import pytest
from django.utils import timezone

from payments.inbound import poll
from payments.models import Processor
from registry.data import database
from tests.bed.stripe import SandboxStripe, sandbox_stripe
from tests.conftest import eventually
from tests.factories import in_thread
from tests.payments.inbound import SECRET, account_of, deliver, rows, seal_secrets


@pytest.fixture
async def stripe():
    async with sandbox_stripe() as found:
        yield found


@pytest.fixture
async def account(tenant, stripe: SandboxStripe):
    account = await account_of(tenant, url=stripe.url)
    await in_thread(seal_secrets, account, SECRET, key=stripe.secret_key)
    return account


async def happens(stripe: SandboxStripe, count: int = 1) -> list[str]:
    """Events at the account that were not delivered; their ids."""
    thing = stripe.state.add({"id": f"th_{len(stripe.all('thing'))}", "object": "thing", "metadata": {}})
    return [(await stripe.tells("thing.changed", thing))["id"] for _ in range(count)]


def listened_to(stripe: SandboxStripe) -> None:
    """A webhook endpoint at Stripe whose deliveries all fail."""
    stripe.calls("http://127.0.0.1:9/")
    stripe.sandbox.webhooks.waits = ()


async def test_an_event_that_was_never_delivered_is_fetched_once(tenant, stripe, account):
    listened_to(stripe)
    [lost] = await happens(stripe)

    new = [await poll.poll() for _ in range(3)]

    assert new == [1, 0, 0]
    assert await rows(tenant, "event_id, source, status, type") == [(lost, "poll", "received", "thing.changed")]


@pytest.mark.parametrize(("days", "new"), [(29, 1), (31, 0)])
async def test_after_a_long_pause_events_of_thirty_days_are_read(tenant, stripe, account, days, new):
    listened_to(stripe)
    await happens(stripe)
    stripe.all("event")[0]["created"] -= int(timedelta(days=days).total_seconds())
    long_ago = timezone.now() - timedelta(days=60)
    await in_thread(lambda: Processor.objects.filter(pk=account.pk).update(created_at=long_ago))

    assert await poll.poll() == new


async def test_a_fetched_event_is_stored_as_it_was_listed(tenant, stripe, account):
    listened_to(stripe)
    await happens(stripe)

    await poll.poll()

    [body] = await rows(tenant, "body")
    [event] = stripe.all("event")
    assert json.loads(bytes(body))["data"] == event["data"]


async def test_an_event_delivered_after_it_was_fetched_is_a_duplicate(server, tenant, stripe, account):
    listened_to(stripe)
    [late] = await happens(stripe)
    await poll.poll()

    status, _ = await deliver(server, account, stripe[late])

    assert status == 200
    assert await rows(tenant, "event_id, source") == [(late, "poll")]


async def test_delivered_events_are_not_fetched_again(server, tenant, stripe, account):
    stripe.calls(f"{server}/webhooks/stripe/{tenant.slug}.cards", secret=SECRET)
    [taken] = await happens(stripe)

    async def is_taken() -> bool:
        return stripe[taken]["pending_webhooks"] == 0

    await eventually(is_taken)

    await poll.poll()

    [asked] = stripe.received("GET /v1/events")
    assert asked.params["delivery_success"] == "false"
    assert await rows(tenant, "event_id, source") == [(taken, "delivery")]


async def test_without_a_webhook_all_events_are_fetched(tenant, stripe, account):
    await in_thread(seal_secrets, account, key=stripe.secret_key)
    ids = await happens(stripe, 3)

    assert await poll.poll() == 3
    assert sorted(await rows(tenant)) == sorted(ids)


async def test_a_long_list_is_read_to_its_end(tenant, stripe, account, monkeypatch):
    monkeypatch.setattr(poll, "PAGE", 2)
    listened_to(stripe)
    ids = await happens(stripe, 7)

    assert await poll.poll() == 7
    assert sorted(await rows(tenant)) == sorted(ids)


async def test_an_interrupted_poll_continues(tenant, stripe, account, monkeypatch):
    """The list is newest first: older events must not be skipped because newer ones were read."""
    monkeypatch.setattr(poll, "PAGE", 2)
    listened_to(stripe)
    ids = await happens(stripe, 5)
    monkeypatch.setattr(poll, "PASS_WITHIN", 0.0)

    first = await poll.poll()
    later = await happens(stripe)
    new = [first, *[await poll.poll() for _ in range(4)]]

    assert sum(new) == 6
    assert max(new) == 2
    assert sorted(await rows(tenant)) == sorted([*ids, *later])


async def test_after_an_unknown_cursor_the_list_is_read_from_its_start(tenant, stripe, account):
    listened_to(stripe)
    [lost] = await happens(stripe)
    await database.fetch(
        "INSERT INTO payments_inboundpoll (tenant_id, processor_id, read_until, pass_until, cursor, error)"
        " VALUES (%s, %s, now() - interval '1 hour', now() + interval '1 minute', 'evt_gone', '')",
        [tenant.pk, account.pk],
    )

    new = [await poll.poll() for _ in range(2)]

    assert new == [0, 1]
    assert await rows(tenant) == [lost]


async def test_an_error_of_one_account_is_stored_with_it_and_affects_no_other(tenant, stripe, account):
    listened_to(stripe)
    await happens(stripe)
    broken = await account_of(tenant, name="broken", url=stripe.url)
    await in_thread(seal_secrets, broken, SECRET, key="sk_test_wrong")

    new = await poll.poll()

    assert new == 1
    errors = dict(await database.fetch("SELECT processor_id, error FROM payments_inboundpoll"))
    assert errors[account.pk] == ""
    assert errors[broken.pk] != ""


async def test_disabled_accounts_are_polled_too(tenant, stripe, account):
    """A disabled processor gets no new payments, but its payments can still be refunded and disputed."""
    listened_to(stripe)
    [lost] = await happens(stripe)
    await in_thread(lambda: type(account).objects.filter(pk=account.pk).update(enabled=False))

    assert await poll.poll() == 1
    assert await rows(tenant) == [lost]
