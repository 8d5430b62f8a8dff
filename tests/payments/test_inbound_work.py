"""Inbound events as work: effect and settlement in one transaction, retries, dead letters, replay."""

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from payments.inbound import decisions, operate
from payments.inbound.decisions import MAX_TRIES
from payments.inbound.handlers import HANDLERS, Effect, NotFoundYet, ProcessorEvent, RetryLater, handler_of
from payments.inbound.work import InboundWork
from payments.models import Dispute, InboundEvent
from payments.processors.base import Processor
from payments.settle.decisions import GIVE_UP_AFTER
from queueing.work.drain import Drain
from registry.data import database
from registry.data.loop import sync_twin
from registry.models import AuditEntry, Tenant
from tests.conftest import eventually
from tests.factories import in_thread, make_payment
from tests.payments.inbound import account_of, deliver, event, handled, handling, rows


@pytest.fixture
async def account(tenant):
    return await account_of(tenant)


@pytest.fixture
async def work():
    async with handling() as work:
        yield work


class Handler:
    """A handler that counts calls, fails on command and writes a row."""

    def __init__(self) -> None:
        self.seen: list[ProcessorEvent] = []
        self.error: Exception | None = None
        self.error_after_writing: Exception | None = None
        self.cut = False  # whether the connection is lost between the work and its commit
        self.told = 0
        self.transactions: list[int] = []  # that it has written in

    async def __call__(self, event: ProcessorEvent, processor: Processor) -> Effect:
        self.seen.append(event)
        if self.error:
            raise self.error
        return Effect("looked at", None, lambda conn: self.write(conn, event), self.tell)

    async def write(self, conn, event: ProcessorEvent) -> None:
        self.transactions += [number for (number,) in await database.rows(conn, "SELECT txid_current()")]
        await conn.execute(
            "INSERT INTO payments_paymentevent (tenant_id, position, payment_id, sequence, status, attempt, at, detail)"
            " SELECT %(tenant)s, n, -n, 1, 'queued', 0, now(), '' FROM payments_number(%(tenant)s, 1) AS n",
            {"tenant": event.tenant_id},
        )
        if self.error_after_writing:
            raise self.error_after_writing
        if self.cut:
            await conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    async def tell(self) -> None:
        self.told += 1


@pytest.fixture
def handler() -> Iterator[Handler]:
    HANDLERS["thing."] = found = Handler()
    yield found
    del HANDLERS["thing."]


async def arrive(server, to, kind: str = "thing.changed", **fields) -> None:
    assert (await deliver(server, to, event(kind, **fields)))[0] == 200


async def written(tenant) -> int:
    """How often the handler's effect was committed."""
    found = await database.fetch("SELECT position FROM payments_latest WHERE tenant_id = %s", [tenant.pk])
    return found[0][0] if found else 0


async def make_due(tenant) -> None:
    await database.fetch("UPDATE payments_inboundevent SET run_at = now() WHERE tenant_id = %s", [tenant.pk])


async def age(tenant, seconds: float) -> None:
    sql = "UPDATE payments_inboundevent SET received_at = received_at - make_interval(secs => %s) WHERE tenant_id = %s"
    await database.fetch(sql, [seconds, tenant.pk])


# -- Done ----------------------------------------------------------------------------------------------------


async def test_an_event_is_handled_once_and_its_effects_are_committed_and_published(
    server, tenant, account, handler, work
):
    await arrive(server, account, object={"id": "th_1", "size": 3})

    verdicts = [await handled(work), await handled(work)]

    assert verdicts == [[True], []]
    assert [(seen.type, seen.object_id, seen.object["size"], seen.tries) for seen in handler.seen] == [
        ("thing.changed", "th_1", 3, 1)
    ]
    assert (await written(tenant), handler.told) == (1, 1)
    assert await rows(tenant, "status, outcome, error, attempt, lease_id") == [("done", "looked at", "", 1, None)]


async def test_an_event_without_a_handler_is_done_and_kept(server, tenant, account, work):
    await arrive(server, account, "unheard.of")

    await handled(work)

    assert await rows(tenant, "status, outcome, length(body) > 0") == [("done", "ignored", True)]


async def test_a_drain_is_woken_by_events_and_handles_them(server, tenant, account, handler):
    work = InboundWork()
    drain = Drain(work)
    working = asyncio.create_task(drain.run(seconds=60))
    await arrive(server, account)

    async def is_done() -> bool:
        return await rows(tenant, "status") == ["done"]

    await eventually(is_done)
    drain.stop()
    await working
    await work.close()
    assert await written(tenant) == 1


def test_the_handler_with_the_longest_prefix_is_used(monkeypatch):
    first, second = object(), object()
    monkeypatch.setitem(HANDLERS, "thing.", first)
    monkeypatch.setitem(HANDLERS, "thing.part.", second)

    found = [handler_of(kind) for kind in ("thing.new", "thing.part.new", "thin", "nothing.new")]

    assert found == [first, second, None, None]


# -- Failed, and tried again ----------------------------------------------------------------------------------------


async def test_effects_that_fail_at_the_commit_are_not_written_and_the_event_is_due_again(
    server, tenant, account, handler, work
):
    await arrive(server, account)
    handler.error_after_writing = RuntimeError("the disk is full")

    first = await handled(work)

    assert (first, await written(tenant), handler.told) == ([False], 0, 0)
    assert await rows(tenant, "status, error, closed, lease_id, run_at > now() - interval '1 second'") == [
        ("received", "RuntimeError: the disk is full", None, None, True)
    ]


async def test_a_failed_event_is_not_hidden_behind_its_own_row(server, tenant, account, handler, work):
    """Neither by the row itself nor by another delivery of the same event."""
    sent = event("thing.changed")
    await deliver(server, account, sent)
    handler.error = RuntimeError("once")
    await handled(work)
    handler.error = None
    await deliver(server, account, sent)
    await make_due(tenant)

    await handled(work)

    assert await rows(tenant, "event_id, status, attempt, error") == [(sent["id"], "done", 2, "")]
    assert await written(tenant) == 1


async def test_a_worker_interrupted_between_effects_and_outcome_has_written_neither(
    server, tenant, account, handler, work
):
    await arrive(server, account)
    handler.cut = True
    first = await handled(work)
    nothing = await written(tenant)
    handler.cut = False
    await make_due(tenant)

    second = await handled(work)

    assert (first, nothing) == ([False], 0)
    assert (second, await written(tenant)) == ([True], 1)
    assert await rows(tenant, "status, attempt") == [("done", 2)]


async def test_an_event_leased_by_a_dead_worker_is_handled_by_others_once_the_lease_expires(
    server, tenant, account, handler, work
):
    await arrive(server, account)
    await work.claim(1, 10)  # and that worker dies

    early = await handled(work, worker=2)
    await database.fetch("UPDATE payments_inboundevent SET leased_until = now() - interval '1 second'")
    late = await handled(work, worker=2)

    assert (early, late) == ([], [True])
    assert await written(tenant) == 1


async def test_an_event_whose_handler_fails_affects_no_others_of_its_commit(server, tenant, account, work):
    handler = HANDLERS["thing."] = Handler()
    HANDLERS["thing.bad"] = bad = Handler()
    bad.error_after_writing = RuntimeError("not this one")
    for kind in ("thing.good", "thing.bad", "thing.good", "thing.bad"):
        await arrive(server, account, kind)

    await handled(work)

    del HANDLERS["thing."], HANDLERS["thing.bad"]
    assert sorted(await rows(tenant, "status, type")) == [("done", "thing.good")] * 2 + [("received", "thing.bad")] * 2
    assert (await written(tenant), handler.told, bad.told) == (2, 2, 0)


async def test_few_events_share_a_commit_because_they_lock_the_stream_of_the_tenant(
    server, tenant, account, handler, work
):
    for _ in range(13):
        await arrive(server, account)

    await handled(work)

    shared = Counter(handler.transactions).values()
    assert (sum(shared), await written(tenant)) == (13, 13)
    assert max(shared) <= 4


async def test_a_worker_that_lost_the_lease_writes_nothing(server, tenant, account, handler, work):
    """Neither the effect nor the outcome: another worker has written both."""
    await arrive(server, account)
    [slow] = await work.claim(1, 10)
    await database.fetch("UPDATE payments_inboundevent SET leased_until = now() - interval '1 second'")
    async with handling() as other:
        assert await handled(other, worker=2) == [True]

    [late] = await work.run([slow])

    assert (late, await written(tenant), handler.told) == (False, 1, 1)


async def test_two_workers_never_lease_the_same_event(server, tenant, account, handler, work):
    for _ in range(10):
        await arrive(server, account)

    async with handling() as other:
        await asyncio.gather(handled(work, worker=1), handled(other, worker=2))

    assert sorted(seen.event_id for seen in handler.seen) == sorted(await rows(tenant))
    assert await written(tenant) == 10


async def test_events_that_are_given_back_are_due_at_once(server, tenant, account, handler, work):
    await arrive(server, account)
    taken = await work.claim(1, 10)

    await work.give_back(taken)

    assert await handled(work, worker=2) == [True]
    assert await written(tenant) == 1


async def test_an_event_that_fails_again_and_again_is_a_dead_letter_with_its_error(
    server, tenant, account, handler, work, monkeypatch
):
    monkeypatch.setattr(decisions, "MAX_TRIES", 3)
    await arrive(server, account)
    handler.error = ValueError("no such\0thing")

    for _ in range(3):
        await handled(work)
        await make_due(tenant)

    assert await handled(work) == []
    assert await rows(tenant, "status, closed, error, attempt, done_at IS NOT NULL") == [
        ("dead", "dead", "gave up after 3 tries: ValueError: no suchthing", 3, True)
    ]


@pytest.mark.parametrize(("patient", "seconds", "status"), [
    (True, 3600, "received"),
    (True, GIVE_UP_AFTER.total_seconds() + 1, "dead"),
    (False, 3600, "dead"),
])  # fmt: skip
async def test_only_outages_of_others_extend_the_retries_to_a_day_at_most(
    server, tenant, account, handler, work, patient, seconds, status
):
    await arrive(server, account)
    await database.fetch("UPDATE payments_inboundevent SET attempt = %s", [MAX_TRIES])
    await age(tenant, seconds)
    handler.error = RetryLater("Stripe is away", patient=patient)

    await handled(work)

    assert await rows(tenant, "status") == [status]


async def test_delays_between_tries_grow(server, tenant, account, handler, work):
    await arrive(server, account)
    handler.error = RetryLater("not yet")
    waits = []

    for _ in range(4):
        await handled(work)
        waits += await rows(tenant, "extract(epoch FROM run_at - now())::float8")
        await make_due(tenant)

    assert 0 < waits[0] <= 0.1
    assert 0.3 < waits[3] <= 0.8


@pytest.mark.parametrize(("patient", "least", "most"), [(True, 290, 300), (False, 0, 0.1)])
async def test_after_an_hour_of_outage_events_are_retried_every_five_minutes(
    server, tenant, account, handler, work, patient, least, most
):
    await arrive(server, account)
    await age(tenant, 3600)
    handler.error = RetryLater("Stripe is away", patient=patient)

    await handled(work)

    [wait] = await rows(tenant, "extract(epoch FROM run_at - now())::float8")
    assert least <= wait <= most


# -- Of somebody else --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"account": "acct_other"}, "it is of another account (acct_other)"),
        ({"livemode": True}, "it is of live mode, and the tenant is in sandbox mode"),
    ],
)
async def test_events_of_another_account_or_mode_are_kept_as_ignored_and_never_handled(
    server, tenant, account, handler, work, fields, error
):
    await arrive(server, account, **fields)

    await handled(work)

    assert handler.seen == []
    assert await rows(tenant, "status, outcome, error") == [("done", "ignored", error)]


@pytest.mark.parametrize("fields", [{"account": "acct_other"}, {"livemode": True}, {}], ids=str)
async def test_events_of_types_without_a_handler_are_ignored_for_any_account(server, tenant, account, work, fields):
    await arrive(server, account, "unheard.of", **fields)
    if not fields:
        await in_thread(account.delete)

    await handled(work)

    assert await rows(tenant, "status, outcome") == [("done", "ignored")]


async def test_a_live_tenant_handles_no_test_events(server, tenant, account, handler, work):
    await in_thread(lambda: Tenant.objects.filter(pk=tenant.pk).update(mode="live"))
    await arrive(server, account)

    await handled(work)

    assert handler.seen == []
    ended = ("done", "ignored", "it is of test mode, and the tenant is in live mode")
    assert await rows(tenant, "status, outcome, error") == [ended]


@pytest.mark.parametrize("fields", [{"account": "acct_other"}, {"livemode": True}], ids=str)
async def test_misplaced_events_about_a_payment_of_ours_are_dead(server, tenant, account, handler, work, fields):
    await arrive(server, account, object=await labelled(tenant), **fields)

    await handled(work)

    assert handler.seen == []
    assert await rows(tenant, "status") == ["dead"]


async def test_a_misplaced_event_about_a_dispute_of_ours_is_dead_without_a_label(
    server, tenant, account, handler, work
):
    await in_thread(lambda: make_dispute(make_payment(tenant), account, "du_1"))
    await arrive(server, account, object={"id": "du_1"}, account="acct_other")

    await handled(work)

    assert await rows(tenant, "status") == ["dead"]


def make_dispute(payment, processor, reference: str) -> None:
    sums = {"amount": 1990, "currency": "BRL", "status": "needs_response", "withdrawn": 1990}
    Dispute.objects.create(tenant=payment.tenant, payment=payment, processor=processor, reference=reference, **sums)


async def labelled(tenant) -> dict:
    """An object that was made for a payment of ours."""
    payment = await in_thread(make_payment, tenant)
    metadata = {"registry_payment": str(payment.correlation_id), "registry_tenant": str(tenant.pk)}
    return {"id": "th_1", "metadata": metadata}


async def test_an_event_about_a_payment_that_never_arrives_is_finally_ignored(
    server, tenant, account, handler, work, monkeypatch
):
    monkeypatch.setattr(decisions, "MAX_TRIES", 3)
    await arrive(server, account)
    handler.error = NotFoundYet()

    for _ in range(3):
        await handled(work)
        await make_due(tenant)

    ended = ("done", "ignored", "there is no such payment yet")
    assert await rows(tenant, "status, outcome, error") == [ended]


async def test_events_of_the_connected_account_that_we_know_are_handled(server, tenant, handler, work):
    account = await account_of(tenant, options={"account": "acct_mine"})
    await arrive(server, account, account="acct_mine")

    await handled(work)

    assert len(handler.seen) == 1


async def test_events_of_a_processor_that_was_removed_are_dead(server, tenant, account, handler, work):
    await arrive(server, account)
    await in_thread(account.delete)

    await handled(work)

    assert await rows(tenant, "status, error") == [("dead", "its processor was removed")]


# -- Replayed, closed, forgotten ------------------------------------------------------------------------------------------


async def dead(server, tenant, account, work) -> int:
    """A dead event's number."""
    await arrive(server, account, account="acct_other", object=await labelled(tenant))
    await handled(work)
    return (await rows(tenant, "id"))[0]


async def test_a_dead_event_is_replayed_with_its_count_of_tries_reset(server, tenant, account, handler, work):
    number = await dead(server, tenant, account, work)
    await in_thread(lambda: type(account).objects.filter(pk=account.pk).update(options={"account": "acct_other"}))
    work.routes = type(work.routes)()  # the routing table is reloaded within half a second by itself

    moved = await operate.replay(tenant_id=tenant.pk, event_id=number, actor="olga", reason="it is ours")

    assert moved is True
    assert await handled(work) == [True]
    assert [seen.tries for seen in handler.seen] == [1]
    assert await rows(tenant, "status, error, attempt") == [("done", "", 2)]


async def test_concurrent_replays_of_an_event_count_once_and_record_the_operator(
    server, tenant, account, handler, work
):
    number = await dead(server, tenant, account, work)
    replay = sync_twin(operate.replay)

    moved = await asyncio.gather(
        *(
            in_thread(replay, tenant_id=tenant.pk, event_id=number, actor=f"olga {n}", reason="it is ours")
            for n in range(5)
        )
    )

    assert sorted(moved) == [0, 0, 0, 0, 1]
    entries = await in_thread(lambda: list(AuditEntry.objects.values_list("action", "tenant_id", "reason")))
    assert entries == [("inbound.replay", tenant.pk, "it is ours")]


async def test_an_event_that_is_still_due_is_not_replayed(server, tenant, account, work):
    await arrive(server, account)
    [number] = await rows(tenant, "id")

    moved = await operate.replay(tenant_id=tenant.pk, event_id=number, actor="olga", reason="?")

    assert moved is False


async def test_a_dead_event_can_be_closed_and_a_done_one_cannot(server, tenant, account, handler, work):
    number = await dead(server, tenant, account, work)
    await arrive(server, account)
    await handled(work)
    done = (await rows(tenant, "id"))[1]

    moved = [
        await operate.close(tenant_id=tenant.pk, event_id=one, actor="olga", reason="not ours")
        for one in (number, number, done)
    ]

    assert moved == [True, False, False]
    assert await rows(tenant, "status") == ["closed", "done"]


async def test_another_tenants_event_is_neither_replayed_nor_closed(server, tenant, account, handler, work, stranger):
    number = await dead(server, tenant, account, work)
    other = await in_thread(lambda: Tenant.objects.exclude(pk=tenant.pk).get())

    moved = [
        await what(tenant_id=other.pk, event_id=number, actor="olga", reason="?")
        for what in (operate.replay, operate.close)
    ]

    assert moved == [False, False]
    assert await rows(tenant, "status") == ["dead"]


async def test_old_done_events_are_deleted_in_slices_and_dead_ones_stay(
    server, tenant, account, handler, work, monkeypatch
):
    monkeypatch.setattr(operate, "SLICE", 2)
    await dead(server, tenant, account, work)
    for _ in range(5):
        await arrive(server, account)
    await handled(work)
    await age(tenant, (operate.KEPT_DAYS + 1) * 86400)
    await arrive(server, account)
    await handled(work)
    await arrive(server, account)

    removed = await operate.retire()

    assert removed == 5
    assert await rows(tenant, "status") == ["dead", "done", "received"]
    assert await in_thread(InboundEvent.objects.count) == 3
