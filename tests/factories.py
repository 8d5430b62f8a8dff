"""Rows for tests, committed through Django's own connection, so that the connections of the loop see them."""

import asyncio
import select
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import count
from typing import Any
from uuid import uuid4

import psycopg
from django.contrib.auth import get_user_model
from django.db import connection
from django.utils import timezone

from payments.models import Attempt, DeadLetter, LedgerEntry, Payment, PaymentEvent, Processor
from payments.states import OPEN, QUEUED, SUCCEEDED, Status
from registry.data import database
from registry.models import Membership, Tenant
from registry.tenants import access
from registry.tenants.encryption import seal

_number = count(1)
# Threads of the tests' own, whose connections stay open: a new one for each row would cost more than most tests do.
_threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="rows")


async def by_hand(action, **what):
    """What an operator does, on a connection of their own: several do it at once, each in a task."""
    async with database.own_connection():
        return await action(**what)


async def in_thread[T](make: Callable[..., T], *args: Any, **fields: Any) -> T:
    """`make(…)` for a test on the loop, on a connection that lives."""

    def run() -> T:
        drop_dead_connection()
        return make(*args, **fields)

    return await asyncio.get_running_loop().run_in_executor(_threads, copy_context().run, run)


def drop_dead_connection() -> None:
    """A test may have cut every session, that of this thread among them. Its new one writes also where the database is
    read-only for the service."""
    if connection.connection is not None and not _is_open(connection.connection):
        connection.close()
    if connection.connection is None:
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION default_transaction_read_only = off")


def _is_open(conn: psycopg.Connection) -> bool:
    """Whether the server still serves it, without a round trip: an idle connection has nothing to read but its end."""
    if conn.closed:
        return False
    poll = select.poll()
    poll.register(conn.fileno(), select.POLLIN)
    return not poll.poll(0)


def end_threads() -> None:
    """Their connections go with them: one left open would keep the database."""
    _threads.shutdown()


def make_tenant(slug: str = "", **fields: Any) -> Tenant:
    slug = slug or f"tenant-{next(_number)}"
    return Tenant.objects.create(slug=slug, name=fields.pop("name", slug), **fields)


def make_api_key(tenant: Tenant, *scopes: str, **options: Any) -> str:
    """The plain text of a new key, by default one that may read and write."""
    key, plain = access.unsaved_key(tenant=tenant, scopes=list(scopes or ("read", "write")), **options)
    key.save()
    return plain


def make_processor(tenant: Tenant, name: str = "default", **fields: Any) -> Processor:
    return Processor.objects.create(tenant=tenant, name=name, **{"kind": "sandbox", "fee": "0.05", **fields})


def make_stripe(tenant: Tenant, url: str, *, name: str = "stripe", secrets: Any = None, **fields: Any) -> Processor:
    """A processor of kind stripe at `url`, with the key and the webhook secret of the bed."""
    processor = make_processor(tenant, name, kind="stripe", url=url, **fields)
    processor.secrets = seal(
        secrets or {"secretKey": "sk_test_bed", "webhookSecrets": ["whsec_bed"]}, place=f"processor {processor.pk}"
    )
    processor.save()
    return processor


def make_person(name: str = "", *, tenant: Tenant | None = None, role: str = "operator", **fields: Any) -> Any:
    """A member of staff; of `tenant` where one is given, else a superuser."""
    people = get_user_model().objects
    name = name or f"person-{next(_number)}"
    if tenant is None:
        return people.create_superuser(name, **fields)
    person = people.create_user(name, is_staff=True, **fields)
    Membership.objects.create(tenant=tenant, user=person, role=role)
    return person


def make_payment(
    tenant: Tenant, *, status: Status = QUEUED, processor: Processor | None = None, **fields: Any
) -> Payment:
    """A payment with the events, attempt and ledger lines that one in this state has."""
    now = timezone.now()
    sent = status != QUEUED and processor is not None
    payment = Payment(
        tenant=tenant,
        **{
            "correlation_id": uuid4(),
            "fingerprint": bytes(16),
            "amount": 1990,
            "currency": "BRL",
            "status": status,
            "sequence": 1 if status == QUEUED else 2,
            "attempt": 1 if sent else 0,
            "run_at": now,
            "created_at": now,
            "changed_at": now,
            **fields,
        },
    )
    if status == SUCCEEDED and processor:
        payment.processor, payment.fee, payment.requested_at = processor, 100, now
    payment.save()
    add_event(payment, 1, QUEUED)
    if status != QUEUED:
        add_event(payment, 2, status)
    if sent:
        _send(payment, processor)
    return payment


def add_event(payment: Payment, sequence: int, status: Status) -> PaymentEvent:
    with connection.cursor() as cursor:
        cursor.execute("SELECT payments_number(%s, 1)", [payment.tenant_id])
        [position] = cursor.fetchone()
    return PaymentEvent.objects.create(
        tenant=payment.tenant,
        position=position,
        payment=payment,
        sequence=sequence,
        status=status,
        at=timezone.now(),
        attempt=payment.attempt,
    )


def make_dead_letter(payment: Payment, **fields: Any) -> DeadLetter:
    return DeadLetter.objects.create(tenant=payment.tenant, payment=payment, **{"code": "tries_used_up", **fields})


def _send(payment: Payment, processor: Processor) -> None:
    outcome = {SUCCEEDED: "booked", **dict.fromkeys(OPEN, "")}.get(payment.status, "declined")
    Attempt.objects.create(
        tenant=payment.tenant,
        payment=payment,
        number=payment.attempt,
        processor=processor,
        reason="cheapest healthy",
        requested_at=payment.requested_at or timezone.now(),
        outcome=outcome,
        latency_ms=12,
    )
    if payment.status == SUCCEEDED:
        for account, amount in (("processor", payment.amount), ("fees", -100), ("balance", 100 - payment.amount)):
            LedgerEntry.objects.create(
                tenant=payment.tenant,
                payment=payment,
                processor_id=processor.pk,
                account=account,
                amount=amount,
                currency=payment.currency,
            )
