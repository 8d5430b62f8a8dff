"""The message queue: push, pop, ack, leases, transactions."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Unpack
from urllib.parse import quote
from uuid import UUID, uuid4

from registry_client._calls import get, post
from registry_client._io.blocking import Handler
from registry_client._queue import API, ConsumerFields, ConsumerOptions, Start, operations_of, pop_path
from registry_client._responses import decode
from registry_client._retry import Retry, Safety
from registry_client._sync.consume import Consumer
from registry_client._sync.http import Http
from registry_client.errors import TransactionRefused
from registry_client.models.queue import (
    Ack,
    Acked,
    AckStatus,
    ExtendedLease,
    Message,
    NewMessage,
    Popped,
    Pushed,
    TransactionResult,
    ack_of,
)

LEASE = 60  # seconds that `extend` asks for


class Queue:
    """The message queues of a tenant."""

    def __init__(self, http: Http) -> None:
        self._http = http

    # -- Producing -------------------------------------------------------------------------------------------------

    def push(
        self,
        queue: str,
        payload: Any,
        *,
        partition: str = "Default",
        transaction_id: str | None = None,
        trace_id: UUID | None = None,
    ) -> Pushed:
        """Push a message; returns once it is durable, or with status `failed`, if the queue is full.

        Its transaction id is made before the first try, so that a retry cannot store it twice.
        """
        message = NewMessage(
            queue=queue,
            payload=payload,
            partition=partition,
            transaction_id=transaction_id or str(uuid4()),
            trace_id=trace_id,
        )
        [pushed] = self.push_many([message])
        return pushed

    def push_many(self, messages: Iterable[NewMessage]) -> list[Pushed]:
        """Push messages in this order; one result per message."""
        return self._http.get_as(list[Pushed], post(f"{API}/push", {"items": list(messages)}))

    # -- Consuming -------------------------------------------------------------------------------------------------

    def pop(
        self,
        queue: str,
        *,
        partition: str | None = None,
        group: str | None = None,
        batch: int = 1,
        wait: float = 0.0,
        auto_ack: bool = False,
        partitions: int | None = None,
        start: Start | None = None,
    ) -> list[Message]:
        """Lease up to `batch` messages, waiting up to `wait` seconds for one; empty if none is due.

        It is not tried again if the service may have executed it: the messages of a lost response come back when their lease ends
        (with `auto_ack` they are lost). `start` is where a new group begins.
        """
        since = start if isinstance(start, datetime) else None
        params = {
            "batch": batch,
            "wait": True if wait else None,
            "timeout": int(wait * 1000) if wait else None,
            "consumerGroup": group,
            "autoAck": auto_ack or None,
            "partitions": None if partition else partitions,
            "subscriptionMode": None if since else start,
            "subscriptionFrom": since,
        }
        call = get(pop_path(queue, partition), params, safety=Safety.ONCE, wait=wait)
        response = self._http.request(call)
        return [] if response.status_code == 204 else decode(response, Popped).messages

    def ack(self, message: Message, status: AckStatus = "completed", *, error: str | None = None) -> Acked:
        """Acknowledge a message, and with it those before it in its lease. Without `success` the lease has ended."""
        [acked] = self.ack_many([ack_of(message, status, error)])
        return acked

    def ack_many(self, acks: Iterable[Ack]) -> list[Acked]:
        """Acknowledge several messages; one result per ack. Repeating an ack is harmless: the lease fences it."""
        return self._http.get_as(list[Acked], post(f"{API}/ack/batch", {"acknowledgments": list(acks)}))

    def extend(self, lease_id: str, seconds: int = LEASE, *, retry: Retry | None = None) -> ExtendedLease:
        """Let a lease end no earlier than `seconds` from now. Without `success` it has ended."""
        call = post(f"{API}/lease/{quote(lease_id, safe='')}/extend", {"seconds": seconds}, retry=retry)
        [extended] = self._http.get_as(list[ExtendedLease], call)
        return extended

    def transaction(self, operations: Iterable[NewMessage | Ack]) -> TransactionResult:
        """Push and acknowledge atomically. Raises TransactionRefused: then nothing was executed.

        It is not tried again if the service may have executed it, because its own messages would be refused as duplicates. After a
        ConnectionFailed the messages are leased again, or the transaction took place.
        """
        call = post(f"{API}/transaction", operations_of(list(operations)), safety=Safety.ONCE)
        result = self._http.get_as(TransactionResult, call)
        if not result.success:
            raise TransactionRefused(result.error or "refused")
        return result

    def consumer(self, queue: str, handler: Handler, **options: Unpack[ConsumerFields]) -> Consumer:
        """A loop that pops messages and passes them to `handler`; call its `run`."""
        return Consumer(self, queue, handler, ConsumerOptions(**options))

    def consume(self, queue: str, handler: Handler, **options: Unpack[ConsumerFields]) -> None:
        """Pass messages to `handler` until the caller is interrupted: acked when it returns, failed when it raises."""
        self.consumer(queue, handler, **options).run()
