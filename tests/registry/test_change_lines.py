"""Lines of changes of state: one for each change of a payment, refund, inbound event, delivery and job, cheap and without secrets."""

import asyncio
import json
import logging
import re
import shutil
import subprocess
import time
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from payments.models import Payment
from payments.processors.reports import RefundReport, Subject
from payments.refunds import operate, refunds
from queueing.jobs import decisions, stall
from queueing.jobs.running import RunningJob, RunningJobs
from queueing.jobs.work import JobWork
from queueing.models import Job
from registry.data import database
from registry.servers import child
from registry.telemetry import changes, logs
from tests.bed import HttpProcessor
from tests.bed.receiver import Receiver
from tests.conftest import Api, at_work, eventually
from tests.factories import in_thread, make_processor
from tests.payments.inbound import account_of, deliver, event, handled, handling
from tests.payments.refunding import book, booked, draining, paying_back, refunds_of
from tests.queueing.hooks import delivering, endpoint, until
from tests.queueing.test_jobs import submit
from tests.registry.conftest import Lines
from tests.settling import hasten

DOCUMENT = Path(__file__).parents[2] / "docs" / "operators" / "logs.md"
LINES = 10_000


def about(lines: Lines, **fields: object) -> list[dict]:
    return [one for one in lines.events if one["logger"] == changes.__name__ and fields.items() <= one.items()]


def steps(found: list[dict]) -> list[tuple[str, str | None, str, int | None]]:
    return [(one["event"], one.get("from"), one["to"], one.get("attempt")) for one in found]


# -- What is written -------------------------------------------------------------------------------------------


async def test_a_payment_has_a_line_when_it_is_accepted_when_it_is_sent_and_when_it_succeeds(
    api: Api, tenant, default: HttpProcessor, worker, lines: Lines
):
    payment = await api.pay()
    await api.until(payment["correlationId"], "succeeded")

    found = about(lines, payment=payment["correlationId"], tenant=tenant.pk)
    assert steps(found) == [
        ("payment queued", None, "queued", None),
        ("payment processing", "queued", "processing", 1),
        ("payment succeeded", "processing", "succeeded", 1),
    ]
    assert [one["why"] for one in found][::2] == ["accepted", "Booked at default"]
    assert [one.get("processor") for one in found] == [None, "default", "default"]


async def test_each_payment_of_a_batch_is_logged_with_the_request_that_brought_it(api: Api, lines: Lines):
    requests: dict[str, str] = {}

    async def pay() -> None:
        async with api.post("/payments", json={"correlationId": str(uuid4()), "amount": "19.90"}) as response:
            requests[(await response.json())["correlationId"]] = response.headers["X-Request-Id"]

    await asyncio.gather(*(pay() for _ in range(20)))

    assert {one["payment"]: one["request_id"] for one in about(lines, event="payment queued")} == requests


async def test_a_payment_whose_outcome_is_unknown_has_a_line_for_each_look_up(
    monkeypatch, api: Api, default: HttpProcessor, worker, lines: Lines
):
    hasten(monkeypatch)
    default.books_but_never_answers()
    payment = await api.pay()
    await api.until(payment["correlationId"], "uncertain")
    default.recovers()
    await api.until(payment["correlationId"], "succeeded")

    found = about(lines, payment=payment["correlationId"])
    assert steps(found)[2] == ("payment uncertain", "processing", "uncertain", 1)
    assert steps(found)[-1][:3] == ("payment succeeded", "uncertain", "succeeded")
    assert [one["attempt"] for one in found[2:]] == list(range(1, len(found) - 1))


async def test_cancelling_a_payment_has_a_line_with_the_id_of_the_request(api: Api, lines: Lines):
    payment = await api.pay()
    async with api.post(f"/payments/{payment['correlationId']}/cancel") as response:
        request = response.headers["X-Request-Id"]

    [_, canceled] = about(lines, payment=payment["correlationId"])
    assert (canceled["from"], canceled["to"], canceled["request_id"]) == ("queued", "canceled", request)


async def test_a_refund_has_lines_with_its_own_id_and_that_of_its_payment(api: Api, tenant, lines: Lines):
    await in_thread(make_processor, tenant, options={"delay": 0})
    payment = await api.pay()
    async with at_work(), paying_back():
        await api.until(payment["correlationId"], "succeeded")
        async with database.own_connection():
            paid = await Payment.async_objects.aget(tenant=tenant, correlation_id=payment["correlationId"])
            receipt = await refunds.refund(tenant_id=tenant.pk, correlation_id=paid.correlation_id)
        await eventually(lambda: about(lines, event="refund returned"))

    found = about(lines, refund=str(receipt.refund_id), payment=payment["correlationId"])
    assert [(one.get("from"), one["to"]) for one in found] == [
        (None, "owed"),
        ("owed", "processing"),
        ("processing", "returned"),
    ]


async def test_a_refund_that_was_booked_from_a_report_already_is_logged_as_it_was_stored(tenant, lines: Lines):
    sandbox = await in_thread(make_processor, tenant, "sandbox", fee="0.05")
    [payment] = await booked(tenant)
    receipt = await refunds.refund(tenant_id=tenant.pk, correlation_id=payment, amount=400)
    subject, reference = Subject(tenant_id=tenant.pk, correlation_id=payment), f"sandbox-{receipt.refund_id}"
    told = {"reference": reference, "subject": subject, "refund_id": None, "amount": 400}
    await book(refunds, tenant, sandbox, RefundReport(**told, pending=False, failed=False))
    async with paying_back():
        await eventually(lambda: about(lines, refund=str(receipt.refund_id), attempt=1, event="refund failed"))

    last = about(lines, refund=str(receipt.refund_id))[-1]
    assert (last["from"], last["to"], last["why"]) == ("processing", "failed", "Booked already")
    assert about(lines, event="refund returned") == []


async def test_a_refund_that_an_operator_closes_has_a_line(tenant, lines: Lines):
    await in_thread(make_processor, tenant, "sandbox", fee="0.05")
    [payment] = await booked(tenant)
    receipt = await refunds.refund(tenant_id=tenant.pk, correlation_id=payment, amount=400)
    await database.fetch("UPDATE payments_refund SET stopped_at = now() WHERE tenant_id = %s", [tenant.pk])
    [one] = await refunds_of(payment)

    closed = [
        await operate.close(tenant_id=tenant.pk, refund_id=one.id, actor="ada", reason="a test") for _ in range(2)
    ]

    [line] = about(lines, event="refund failed", refund=str(receipt.refund_id), payment=str(payment))
    assert closed == [True, False]
    assert (line["from"], line["to"], line["why"]) == ("owed", "failed", operate.CLOSED_DETAIL)


async def test_an_inbound_event_has_a_line_when_it_is_received_and_when_it_is_handled(server, tenant, lines: Lines):
    account, what = await account_of(tenant), event("charge.expired")
    await deliver(server, account, what)
    async with handling() as work:
        await handled(work)

    found = about(lines, inbound=what["id"], type="charge.expired", tenant=tenant.pk)
    assert steps(found) == [
        ("inbound event received", None, "received", None),
        ("inbound event done", "received", "done", 1),
    ]


async def test_a_delivery_has_a_line_for_each_attempt_that_names_what_it_is_about(api: Api, tenant, lines: Lines):
    async with Receiver() as receiver:
        hook = await endpoint(tenant, receiver.url, "payment.queued")
        async with delivering():
            payment = await api.pay()
            await until(hook, "delivered")

    [found] = about(lines, subject=payment["correlationId"])
    assert (found["event"], found["type"], found["endpoint"]) == (
        "delivery delivered",
        "payment.queued",
        str(hook.uuid),
    )


async def test_a_job_has_a_line_when_it_is_accepted_when_it_begins_and_when_it_ends(api: Api, lines: Lines):
    job = await submit(api)
    async with draining(JobWork()):
        await eventually(lambda: len(about(lines, job=job["id"])) == 3)

    assert steps(about(lines, job=job["id"], kind="test.echo")) == [
        ("job queued", None, "queued", None),
        ("job running", "queued", "running", 1),
        ("job succeeded", "running", "succeeded", 1),
    ]


async def test_each_job_of_a_batch_and_each_event_is_logged_with_the_request_that_brought_it(
    api: Api, server, tenant, lines: Lines
):
    requests: dict[str, str] = {}

    async def ask() -> None:
        async with api.post("/jobs", json={"kind": "test.echo", "input": {}}) as response:
            assert response.status == 202, await response.text()
            requests[(await response.json())["id"]] = response.headers["X-Request-Id"]

    await asyncio.gather(*(ask() for _ in range(20)))
    account, what = await account_of(tenant), event("charge.expired")
    await deliver(server, account, what)

    assert {one["job"]: one["request_id"] for one in about(lines, event="job queued")} == requests
    [received] = about(lines, inbound=what["id"])
    assert re.fullmatch("[0-9a-f]{16}", received["request_id"])


async def test_a_job_whose_worker_died_was_running_before_and_one_that_is_canceled_meanwhile_is_not_queued(
    api: Api, lines: Lines
):
    job = await submit(api)
    first, second = JobWork(), JobWork()
    async with database.own_connection():
        await first.claim(1, 10)
        await Job.async_objects.filter(uuid=UUID(job["id"])).aupdate(leased_until="2020-01-01T00:00:00Z")
        [again] = await second.claim(2, 10)
        async with api.post(f"/jobs/{job['id']}/cancel") as response:
            assert response.status == 202, await response.text()
        await second.write([decisions.failed(again, "error", "no luck")])
        await first.close()
        await second.close()

    assert steps(about(lines, job=job["id"]))[1:] == [
        ("job running", "queued", "running", 1),
        ("job running", "running", "running", 2),
        ("job canceled", "running", "canceled", 2),
    ]


async def test_jobs_of_a_worker_whose_loop_is_blocked_have_lines_of_how_they_ended(
    monkeypatch: pytest.MonkeyPatch, api: Api, lines: Lines
):
    monkeypatch.setattr(stall, "_kill", lambda: None)
    blocking = await submit(api)
    work, jobs = JobWork(), RunningJobs()
    async with database.own_connection():
        [claim] = await work.claim(1, 10)
        job = RunningJob(claim, lease=30.0)
        jobs.add(job)
        guard = stall.LoopGuard(jobs, work._statement)
        guard._parameters = database.connection_parameters()
        await asyncio.to_thread(guard._replace, "a job blocked the loop", [stall._outcome(job, blocks=True)])
        await work.close()

    assert steps(about(lines, job=blocking["id"]))[-1][:3] == ("job queued", "running", "queued")
    assert about(lines, job=blocking["id"])[-1]["why"] == "blocked_the_loop"


def test_the_reason_is_shortened_and_has_no_secret(lines: Lines):
    secret = "sk_live_hushhush"

    changes.record([changes.change("payment", "processing", "failed", tenant=1, why=f"{secret} {'x' * 500}")])

    assert "hushhush" not in lines.text
    assert lines.events[0]["why"].startswith("sk_live_[redacted]")
    assert len(lines.events[0]["why"]) <= changes.LONGEST_WHY


def test_several_changes_are_one_record_and_each_a_line(lines: Lines):
    changes.record(changes.change("job", "queued", "running", tenant=n) for n in range(3))

    assert [one["tenant"] for one in lines.events] == [0, 1, 2]
    assert {one["level"] for one in lines.events} == {"info"}
    assert lines.text.count("\n") == 3


@pytest.fixture
def level_kept():
    before = changes.log.level
    yield
    changes.log.setLevel(before)


def test_changes_can_be_switched_off_and_are_not_even_made_then(settings, level_kept, lines: Lines):
    changes.log.setLevel(logs.level_of_changes(on=False))

    changes.record(pytest.fail("made") for _ in range(1))

    assert lines.text == ""


def test_lines_for_people_name_the_change_and_its_ids():
    record = logging.LogRecord(changes.__name__, logging.INFO, "", 0, "", None, None)
    record.changes = [changes.change("payment", "queued", "processing", tenant=7, payment=uuid4(), attempt=1)]

    text = changes.formatted(record, readable=True)

    assert text and re.search(
        r"payment processing +tenant=7 from=queued to=processing payment=[0-9a-f-]{36} attempt=1", text
    )


# -- What it costs ---------------------------------------------------------------------------------------------


def test_lines_of_a_batch_cost_a_fraction_of_calls_of_a_logger():
    """In processor time, of this thread: what else the machine does has no part in it."""
    formatter = next(h.formatter for h in logging.getLogger().handlers if isinstance(h.formatter, logs.Formatter))
    ids, plain = [uuid4() for _ in range(LINES)], logging.getLogger("some.room")
    fields = {"attempt": 1, "processor": "default", "why": "Booked at default"}

    began = time.thread_time()
    for at in range(0, LINES, 200):
        record = logging.LogRecord(changes.__name__, logging.INFO, "", 0, "", None, None)
        record.changes = [
            changes.change("payment", "processing", "succeeded", tenant=7, payment=id, **fields)
            for id in ids[at : at + 200]
        ]
        formatter.format(record)
    batched = time.thread_time() - began

    began = time.thread_time()
    for id in ids[: LINES // 10]:
        extra = {"tenant": 7, "payment": str(id), "from": "processing", "to": "succeeded", **fields}
        formatter.format(plain.makeRecord("some.room", logging.INFO, "", 0, "payment succeeded", (), None, extra=extra))
    called = 10 * (time.thread_time() - began)

    print(f"{1e6 * batched / LINES:.1f} µs per line of a batch, {1e6 * called / LINES:.1f} per call")
    assert batched < called / 5


def test_up_passes_these_lines_on_as_they_are(capfdbinary, monkeypatch):
    monkeypatch.setattr(child, "redact_text", lambda text: pytest.fail(f"searched once more: {text}"))
    record = logging.LogRecord(changes.__name__, logging.INFO, "", 0, "", None, None)
    record.changes = [changes.change("payment", "queued", "processing", tenant=7)]
    line = (changes.formatted(record, readable=False) or "").encode()

    child.write_line("worker-0", line)

    assert capfdbinary.readouterr().err == b"[worker-0] " + line + b"\n"


def test_another_loggers_record_cannot_pass_as_changes():
    record = logging.LogRecord("some.room", logging.INFO, "", 0, "", None, None)
    record.changes = [{"event": "payment succeeded", "token": "hush-hush"}]

    assert changes.formatted(record, readable=False) is None


# -- Searching -------------------------------------------------------------------------------------------------

PIPES = re.findall(r"^journalctl [^|]+\| (jq .+)$", DOCUMENT.read_text(), re.M)
EXAMPLE_ID = "5f4c5b1e-8f7b-4a57-9d2f-0c9a3a1f2b11"


@pytest.mark.skipif(not shutil.which("jq"), reason="jq is not installed")
async def test_the_documented_queries_find_a_payment_and_count_states_in_real_lines(
    api: Api, tenant, default: HttpProcessor, worker, lines: Lines
):
    default.answers(402)
    payment, other = await api.pay(), await api.pay()
    await api.until(payment["correlationId"], "failed")
    await api.until(other["correlationId"], "failed")
    logging.getLogger("registry.telemetry.slow").warning("slow statement", extra={"statement": "settle.settle"})
    log = "".join(f"[worker-0] {line}\n" for line in lines.text.splitlines()) + "Traceback, which is no JSON\n"
    log = log.replace(payment["correlationId"], EXAMPLE_ID)

    by_payment, failed, counted, slow = [jq(pipe, log) for pipe in PIPES]

    assert [json.loads(line)["to"] for line in by_payment] == ["queued", "processing", "failed"]
    assert {line.split("\t")[2] for line in failed} == {EXAMPLE_ID, other["correlationId"]}
    assert json.loads("".join(counted))["payment failed"] == 2
    assert [json.loads(line)["statement"] for line in slow] == ["settle.settle"]


def jq(command: str, log: str) -> list[str]:
    done = subprocess.run(["bash", "-c", command], input=log, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


async def test_fields_that_the_documented_pipelines_and_queries_name_are_in_the_lines(
    api: Api, default: HttpProcessor, worker, lines: Lines
):
    payment = await api.pay()
    await api.until(payment["correlationId"], "succeeded")
    alloy, logql = (re.search(rf"```{name}\n(.*?)```", DOCUMENT.read_text(), re.S)[1] for name in ("alloy", "logql"))
    extracted = dict(re.findall(r'(\w+) = "(\w+)"', re.search(r"expressions = \{(.*)\}", alloy)[1]))
    labels = set(re.findall(r'(\w+) = ""', alloy))

    assert labels == {"level", "logger"} <= extracted.keys()
    assert len(re.findall(r"\{", alloy)) == len(re.findall(r"\}", alloy))
    for line in about(lines, payment=payment["correlationId"]):
        assert {"timestamp", "event", "why", "tenant", *extracted.values()} <= line.keys()
    assert set(re.findall(r'logger="([^"]+)"', logql)) == {changes.__name__, "registry.telemetry.slow"}
