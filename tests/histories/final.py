"""What is there at the end of a run: in PostgreSQL, at the processors, in the queue, and what `check_books` says."""

import asyncio
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from payments.intake.payment import Submission
from queueing.spill.quarantine import FOLDER
from queueing.spill.record import decode_quarantined
from tests.bed.journal import decode
from tests.bed.stripe import SandboxStripe
from tests.bed.template import TENANT
from tests.chaos.service import PROJECT, Service
from tests.chaos.traffic import LEASE, Traffic
from tests.histories.entries import (
    Booked,
    DeadLetter,
    End,
    Line,
    Lines,
    Ran,
    Returned,
    SetAside,
    StoredEvent,
    StoredJob,
    StoredPayment,
    StoredRefund,
)
from tests.histories.payers import CARD
from tests.histories.strikes import Site

_OPEN = {
    "refunds": "SELECT count(*) FROM payments_refund WHERE closed IS NULL",
    "jobs": "SELECT count(*) FROM queueing_job WHERE closed IS NULL",
    "deliveries": "SELECT count(*) FROM queueing_webhookdelivery WHERE closed IS NULL",
    "events without deliveries": """
        SELECT coalesce(sum(s.position - (e.positions ->> 'payments')::bigint), 0)::bigint
        FROM queueing_webhookendpoint e JOIN payments_latest s USING (tenant_id)
        WHERE NOT e.callback AND e.deleted_at IS NULL""",
}
_POSITION = "SELECT s.position FROM payments_latest s JOIN registry_tenant t ON t.id = s.tenant_id WHERE t.slug = %s"
_PURGED = "SELECT s.purged_until FROM payments_stream s JOIN registry_tenant t ON t.id = s.tenant_id WHERE t.slug = %s"
_PAYMENTS = """
SELECT p.correlation_id::text AS payment, p.status, p.sequence, p.amount, p.refunded, coalesce(r.name, '') AS processor
FROM payments_payment p LEFT JOIN payments_processor r ON r.id = p.processor_id
"""
_REFUNDS = """
SELECT f.public_id::text AS refund, p.correlation_id::text AS payment, f.status, f.amount
FROM payments_refund f JOIN payments_payment p ON p.tenant_id = f.tenant_id AND p.id = f.payment_id
"""
_EVENTS = """
SELECT e.position, p.correlation_id::text AS payment, e.sequence, e.status, e.kind
FROM payments_paymentevent e JOIN payments_payment p ON p.tenant_id = e.tenant_id AND p.id = e.payment_id
ORDER BY e.position
"""
_LINES = """
SELECT p.correlation_id::text AS payment, r.name AS processor, l.cause, l.account, sum(l.amount)::bigint AS amount, count(*) AS count
FROM payments_ledgerentry l
JOIN payments_payment p ON p.tenant_id = l.tenant_id AND p.id = l.payment_id
JOIN payments_processor r ON r.id = l.processor_id
GROUP BY 1, 2, 3, 4
"""
_DIFFERENCES = "SELECT kind || ' of ' || key FROM payments_difference WHERE resolution = ''"
_JOBS = "SELECT uuid::text AS job, status, attempt AS attempts FROM queueing_job WHERE kind LIKE 'bed.nap%'"
KIND = "payment"  # of the spill's records
TRACE, LONGEST_TRACE = "Traceback (most recent call last)", 500  # characters
_STORED = {StoredPayment: _PAYMENTS, StoredRefund: _REFUNDS, StoredEvent: _EVENTS, Lines: _LINES, StoredJob: _JOBS}


# -- Until it is the end ---------------------------------------------------------------------------------------


def left(service: Service) -> dict[str, int]:
    """What is not done yet, by kind."""
    try:
        found = {what: int(service.postgres_says(question)) for what, question in _OPEN.items()}
    except psycopg.OperationalError as error:
        return {str(error): 1}
    return {what: count for what, count in found.items() if count}


def behind(service: Service, latest: dict[str, int]) -> dict[str, int]:
    """How many events each watcher has not seen."""
    [(position,)] = _asked(service, _POSITION)
    return {name: position - seen for name, seen in latest.items() if seen < position}


def _asked(service: Service, question: str) -> list[tuple[Any, ...]]:
    with service.connect() as connection:
        return connection.execute(question, [TENANT]).fetchall()


def _all(service: Service, question: str) -> list[tuple[Any, ...]]:
    with service.connect() as connection:
        return connection.execute(question).fetchall()


# -- The end -----------------------------------------------------------------------------------------------------


async def state(site: Site, traffic: Traffic, *, seed: int, surprises: list[str]) -> list[Line]:
    service = site.service
    waiting, dead = await traffic.left()
    lines = await of_payments(service, [service.data], seed=seed, surprises=surprises, waiting=waiting)
    letters = [
        DeadLetter(group=group, partition=one.partition, transaction=one.transaction_id)
        for group, one in dead.elements()
    ]
    return [*lines, *_at_stripe(site.stripe), *letters, *_ran(service)]


async def of_payments(
    service: Service, folders: Sequence[Path], *, seed: int, surprises: list[str], waiting: int = 0
) -> list[Line]:
    """What is stored, what processors of kind `http` booked, and the end. `folders`: the data folder of each host."""
    books, stored = await asyncio.gather(_books(service), asyncio.to_thread(lambda: [*_stored(service)]))
    [(position,)], [(purged_until,)] = _asked(service, _POSITION), _asked(service, _PURGED)
    end = End(
        seed=seed,
        commit=commit(),
        position=position,
        purged_until=purged_until,
        summary=await asyncio.to_thread(service.get, "/payments-summary"),
        books=books,
        differences=[difference for (difference,) in _all(service, _DIFFERENCES)],
        traces=[trace for folder in folders for trace in _traces(folder)],
        waiting=waiting,
        lease=LEASE,
        surprises=surprises,
    )
    booked = await asyncio.to_thread(lambda: [*_booked(service)])
    kept = [one for folder in folders for one in _set_aside(folder)]
    return [*booked, *stored, *kept, end]


def _stored(service: Service) -> Iterator[Line]:
    with service.connect() as connection:
        for kind, question in _STORED.items():
            with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
                yield from (kind(**row) for row in cursor.execute(question))


def _booked(service: Service) -> Iterator[Line]:
    for name, processor in service.processors.items():
        yield from (Booked(processor=name, payment=id, amount=cents) for id, (cents, _) in processor.booked.items())


def _at_stripe(stripe: SandboxStripe) -> Iterator[Line]:
    for intent in stripe.all("payment_intent", status="succeeded"):
        yield Booked(processor=CARD, payment=intent["metadata"]["registry_payment"], amount=intent["amount"])
    for refund in stripe.all("refund", status="succeeded"):
        said = refund["metadata"]
        names = {"payment": said["registry_payment"], "refund": said["registry_refund"]}
        yield Returned(processor=CARD, amount=refund["amount"], **names)


def _set_aside(data: Path) -> Iterator[Line]:
    for path in (data / "spill" / FOLDER).glob("*-*"):
        kept = decode_quarantined(path.read_bytes())
        kind, asked = path.name.partition("-")[0], {}
        if kept.record and kept.record.kind == KIND:
            payment = msgspec.msgpack.decode(kept.record.data, type=Submission).payment
            asked = {"payment": str(payment.correlation_id), "amount": payment.amount}
        yield SetAside(kind=kind, reason=kept.reason, **asked)


def _ran(service: Service) -> Iterator[Line]:
    if service.journal.exists():
        yield from (Ran(moment=decode(line)) for line in service.journal.read_bytes().splitlines())


def _traces(data: Path) -> Iterator[str]:
    """The ends of the lines with a stack trace: what is expected of strikes is said in words."""
    with (data / "up.log").open(errors="replace") as log:
        yield from (line.strip()[-LONGEST_TRACE:] for line in log if TRACE in line)


async def _books(service: Service) -> list[str]:
    """What `check_books` found, in words."""
    try:
        await service.manage("check_books", "--json")
    except RuntimeError as error:
        return str(error).splitlines()
    return []


def commit() -> str:
    """The commit, or nothing where files have changed since."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, text=True).stdout.strip()

    return "" if git("status", "--porcelain") else git("rev-parse", "HEAD")
