"""Events in any order and any number: the newest state of an object wins, and webhooks report the same.

Each story is told at a Stripe of our own to as many payments as there are shuffles. Their events are the ones that it
recorded; a seed per payment says in which order they arrive, which come twice, and which are there before the story's end.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from payments.inbound.receive import ReceivedEvent, read_head, receive
from payments.inbound.work import InboundWork
from payments.models import Processor
from payments.states import OPEN
from queueing.models import WebhookEndpoint
from queueing.work.drain import Drain
from registry.data import database
from registry.models import Tenant
from sandbox.webhooks import payload
from tests.bed.stripe import SandboxStripe, sandbox_stripe
from tests.conftest import at_work, eventually
from tests.depth import deep
from tests.factories import in_thread, make_stripe
from tests.payments.inbound import rows
from tests.queueing.hooks import again, endpoint, fan_out
from tests.settling import accept

SHUFFLES, TIMES = deep(10, 50), deep(1, 8)  # more at once would only be a test of the bed's patience
TWICE = 0.25  # share of the events that come once more
EARLY = 0.5  # of those that have happened before the story goes on
ROUNDS = 3  # in which the others arrive
PATIENCE = 120.0  # seconds for all of them, on a machine that has other things to do
AMOUNT = 1990
FEE = 88  # what the sandbox keeps of it


class Bench:
    """A tenant's account at Stripe, with what people do there."""

    def __init__(self, tenant: Tenant, stripe: SandboxStripe, account: Processor) -> None:
        self.tenant, self.stripe, self.account = tenant, stripe, account
        self.told: set[str] = set()  # events that have arrived

    async def post(self, path: str, **fields: Any) -> None:
        async with self.session.post(f"{self.stripe.url}/v1/{path}", data=fields) as response:
            assert response.status in (200, 402), await response.text()

    def new_events(self) -> dict[str, list[bytes]]:
        """What has happened and did not arrive yet, by intent, in the order in which it happened."""
        found = defaultdict(list)
        for event in self.stripe.all("event"):
            thing = event["data"]["object"]
            if event["id"] not in self.told:
                found[thing["id"] if thing["object"] == "payment_intent" else thing["payment_intent"]].append(
                    payload(event)
                )
        return found

    async def arrive(self, bodies: list[bytes]) -> None:
        for body in bodies:
            head = read_head(body)
            self.told.add(head.id)
            await receive(ReceivedEvent(self.tenant.pk, self.account.pk, head, body, "{}", "delivery"))

    async def quiet(self) -> None:
        """Until every event is over and no worker has anything to do with a payment."""
        sql = """SELECT (SELECT count(*) FROM payments_inboundevent WHERE tenant_id = %(t)s AND closed IS NULL)
            + (SELECT count(*) FROM payments_payment WHERE tenant_id = %(t)s AND status = ANY(%(open)s))"""

        async def over() -> bool:
            await asyncio.sleep(0.05)  # the question costs what it asks about some time
            return (await database.fetch(sql, {"t": self.tenant.pk, "open": [str(s) for s in OPEN]}))[0][0] == 0

        await eventually(over, within=PATIENCE)


@pytest.fixture
async def bench(tenant, quick) -> AsyncIterator[Bench]:
    work = InboundWork()
    drain = Drain(work)
    async with (
        sandbox_stripe() as stripe,
        at_work(),
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {stripe.secret_key}"}) as session,
    ):
        bench = Bench(tenant, stripe, await in_thread(make_stripe, tenant, stripe.url))
        bench.session = session
        working = asyncio.create_task(drain.run(seconds=600))
        yield bench
        drain.stop()
        await working
        await work.close()


# -- Stories ----------------------------------------------------------------------------------------------


async def authenticated_disputed_and_lost(bench: Bench, intent: str) -> None:
    await bench.stripe.authenticates(intent)
    await disputed(bench, intent, won=False)


async def declined_then_paid_then_refunded_in_parts(bench: Bench, intent: str) -> None:
    await bench.post(f"payment_intents/{intent}/confirm", payment_method="pm_card_chargeDeclined")
    await bench.post(f"payment_intents/{intent}/confirm", payment_method="pm_card_visa")
    for amount in (500, 700):
        await bench.post("refunds", payment_intent=intent, amount=amount)


async def canceled_there(bench: Bench, intent: str) -> None:
    await bench.post(f"payment_intents/{intent}/cancel")


async def paid_at_once_disputed_and_won(bench: Bench, intent: str) -> None:
    await disputed(bench, intent, won=True)


async def disputed(bench: Bench, intent: str, *, won: bool) -> None:
    dispute = await bench.stripe.disputes(bench.stripe[intent]["latest_charge"])
    await bench.stripe.decides(dispute["id"], won=won)


async def told(hook: WebhookEndpoint) -> dict[str, list[str]]:
    """What is owed to it of each payment, in the order of the stream, once it has looked at all that happened."""
    newest = "SELECT position FROM payments_latest WHERE tenant_id = %s"
    while (await again(hook)).positions["payments"] < (await database.fetch(newest, [hook.tenant_id]))[0][0]:
        await fan_out()
    found = await database.fetch(
        """SELECT subject::text, array_agg(type::text ORDER BY position) FROM queueing_webhookdelivery
        WHERE tenant_id = %s AND endpoint_id = %s GROUP BY subject""",
        [hook.tenant_id, hook.pk],
    )
    return dict(found)


def types(timeline: list[str]) -> list[str]:
    """What a webhook calls these steps."""
    return [step if "." in step else f"payment.{step}" for step in timeline]


ASKED = ["queued", "processing", "requires_action", "processing"]
BOOKED = [("balance", FEE - AMOUNT), ("fees", -FEE), ("processor", AMOUNT)]


def back(*amounts: int) -> list[tuple[str, int]]:
    """The lines of money that went back, or (negative) came again."""
    return [(account, sign * amount) for amount in amounts for account, sign in (("balance", 1), ("processor", -1))]


@pytest.mark.parametrize("first", range(0, SHUFFLES * TIMES, SHUFFLES))
@pytest.mark.parametrize(
    ("method", "story", "status", "timeline", "lines", "refunded"),
    [
        (
            "pm_card_threeDSecure2Required",
            authenticated_disputed_and_lost,
            "succeeded",
            [*ASKED, "succeeded", "dispute.opened", "dispute.closed"],
            BOOKED + back(AMOUNT),
            0,
        ),
        (
            None,
            declined_then_paid_then_refunded_in_parts,
            "succeeded",
            [*ASKED, "succeeded", "refund.returned", "refund.returned"],
            BOOKED + back(500, 700),
            1200,
        ),
        (None, canceled_there, "canceled", [*ASKED, "canceled"], [], 0),
        (
            "pm_card_visa",
            paid_at_once_disputed_and_won,
            "succeeded",
            ["queued", "processing", "succeeded", "dispute.opened", "dispute.closed"],
            BOOKED,
            0,
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_shuffled_events_of_a_history_end_in_the_same_state_ledger_events_and_deliveries(
    bench: Bench,
    method: str | None,
    story: Callable[[Bench, str], Awaitable[None]],
    status: str,
    timeline: list[str],
    lines: list[tuple[str, int]],
    refunded: int,
    first: int,
):
    hook = await endpoint(bench.tenant, "http://127.0.0.1:60999/hook")
    await accept(bench.tenant, SHUFFLES, amount=AMOUNT, method={"paymentMethod": method} if method else None)
    await bench.quiet()
    await asyncio.gather(*(bench.arrive(bodies) for bodies in early(bench.new_events(), first)))
    await bench.quiet()
    intents = [intent["id"] for intent in bench.stripe.all("payment_intent")]

    await asyncio.gather(*(story(bench, intent) for intent in intents))
    shuffled = [shuffle(bodies, seed) for seed, bodies in enumerate(bench.new_events().values(), first)]
    for number in range(ROUNDS):
        await asyncio.gather(*(bench.arrive(bodies[number::ROUNDS]) for bodies in shuffled))
    await bench.quiet()

    assert len(intents) == SHUFFLES
    assert set(await rows(bench.tenant, "status")) == {"done"}
    ends = await ends_of(bench.tenant)
    assert set(ends) == {(status, *frozen(timeline, lines), refunded)}
    assert len(ends) == SHUFFLES
    deliveries = await told(hook)
    assert list(deliveries.values()) == [types(timeline)] * SHUFFLES


def early(events: dict[str, list[bytes]], first: int) -> list[list[bytes]]:
    """Some of what has happened already."""
    chosen = []
    for seed, bodies in enumerate(events.values(), first):
        rng = random.Random(f"early {seed}")
        chosen.append([body for body in bodies if rng.random() < EARLY])
    return chosen


def shuffle(bodies: list[bytes], seed: int) -> list[bytes]:
    rng = random.Random(seed)
    arriving = bodies + [body for body in bodies if rng.random() < TWICE]
    rng.shuffle(arriving)
    return arriving


def frozen(timeline: list[str], lines: list[tuple[str, int]]) -> tuple[Any, ...]:
    return tuple(timeline), tuple(sorted(lines))


async def ends_of(tenant: Tenant) -> list[tuple[Any, ...]]:
    """Each payment's status, what happened to it in order (which is what is delivered to others), ledger, refunds."""
    found = await database.fetch(
        """SELECT p.status, p.refunded,
            ARRAY(SELECT coalesce(nullif(e.kind, ''), e.status) FROM payments_paymentevent e
                WHERE e.tenant_id = p.tenant_id AND e.payment_id = p.id ORDER BY e.sequence)::text[],
            ARRAY(SELECT l.account || ' ' || l.amount FROM payments_ledgerentry l
                WHERE l.tenant_id = p.tenant_id AND l.payment_id = p.id)::text[]
        FROM payments_payment p WHERE p.tenant_id = %s""",
        [tenant.pk],
    )
    return [
        (status, *frozen(timeline, [(a, int(n)) for a, n in (line.split() for line in lines)]), refunded)
        for status, refunded, timeline, lines in found
    ]
