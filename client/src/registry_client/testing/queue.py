"""The message queue of the test double: partitions, groups, leases, retries, dead letters."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx2

from registry_client.testing.changes import Changes
from registry_client.testing.log import FakePartition, Reader
from registry_client.testing.wire import Answer, Asked, Json, Refused, Routes, answer, iso, now

API = "/api/v1"
QUEUE_MODE = "__QUEUE_MODE__"
LEASE = 300  # seconds


class FakeQueue:
    """All queues of the double."""

    def __init__(self, routes: Routes, changes: Changes) -> None:
        self._partitions: dict[tuple[str, str], FakePartition] = {}
        self._changes = changes
        routes.add("POST", f"{API}/push", self._push)
        routes.add("GET", f"{API}/pop/queue/{{queue}}", self._pop)
        routes.add("GET", f"{API}/pop/queue/{{queue}}/partition/{{partition}}", self._pop)
        routes.add("POST", f"{API}/ack/batch", self._ack)
        routes.add("POST", f"{API}/lease/{{lease}}/extend", self._extend)
        routes.add("POST", f"{API}/transaction", self._transaction)

    # -- What a test sees and decides ------------------------------------------------------------------------------

    def payloads(self, queue: str, partition: str | None = None) -> list[Any]:
        """The payloads of all messages of a queue, in order, by partition."""
        with self._changes.lock:
            return [message["data"] for one in self._of(queue, partition) for message in one.messages]

    def waiting(self, queue: str, *, group: str = QUEUE_MODE) -> list[Any]:
        """The payloads that the group has not acked."""
        with self._changes.lock:
            return [message["data"] for one in self._of(queue) for message in one.reader(group).waiting]

    def dead_letters(self, queue: str, *, group: str = QUEUE_MODE) -> list[Any]:
        """The payloads of the group's dead letters."""
        with self._changes.lock:
            return [letter for one in self._of(queue) for letter in one.reader(group).dead]

    def expire_leases(self) -> None:
        """All leases end now, as those of consumers that were too slow."""
        with self._changes.lock:
            for one in self._partitions.values():
                one.expire_leases()
        self._changes.notify()

    def _of(self, queue: str, partition: str | None = None) -> list[FakePartition]:
        return [one for (name, part), one in self._partitions.items() if name == queue and partition in (None, part)]

    # -- Push and pop ----------------------------------------------------------------------------------------------

    def _partition(self, queue: str, name: str) -> FakePartition:
        return self._partitions.setdefault((queue, name), FakePartition(queue, name))

    def _push(self, asked: Asked) -> Answer:
        items = asked.body.get("items")
        if not isinstance(items, list):
            raise Refused(400, "bad-request", "items array is required")
        pushed = [self._push_one(index, item) for index, item in enumerate(items)]
        self._changes.notify()
        return answer(pushed, 201)

    def _push_one(self, index: int, item: Json) -> Json:
        partition = self._partition(item["queue"], item.get("partition", "Default"))
        name = item.get("transactionId") or str(uuid4())
        known = partition.find(name)
        message = known or partition.append(name, item.get("payload"), item.get("traceId"))
        told = {"index": index, "transaction_id": name, "message_id": message["id"], "queueName": partition.queue}
        if known:
            return told | {"status": "duplicate"}
        return told | {"status": "queued", "partition_id": partition.id, "trace_id": message["traceId"]}

    def _pop(self, asked: Asked, queue: str, partition: str | None = None) -> Answer:
        group, lease = asked.query.get("consumerGroup") or QUEUE_MODE, str(uuid4())
        new = asked.query.get("subscriptionMode") == "new"
        left, found = asked.number("batch", 1), list[Json]()
        readers = [one.reader(group, new=new) for one in self._of(queue, partition)]
        for reader in [one for one in readers if one.is_free][: asked.number("partitions", 1)]:
            if left <= len(found):
                break
            found += reader.lease(lease, left - len(found), LEASE, auto_ack=asked.query.get("autoAck") == "true")
        if not found:
            return httpx2.Response(204) if asked.last else None
        first = found[0]
        named = {name: first[name] for name in ("partition", "partitionId", "leaseId", "consumerGroup")}
        return answer({"success": True, "queue": queue, **named, "partitionsClaimed": 1, "messages": found})

    # -- Ack, lease, transaction -----------------------------------------------------------------------------------

    def _reader(self, partition: str, group: str) -> Reader | None:
        found = (one for one in self._partitions.values() if one.id == partition)
        return next((one.reader(group) for one in found), None)

    def _ack(self, asked: Asked) -> Answer:
        wanted = asked.body.get("acknowledgments")
        if not isinstance(wanted, list):
            raise Refused(400, "bad-request", "acknowledgments array is required")
        acked = [self._ack_one(index, one) for index, one in enumerate(wanted)]
        self._changes.notify()
        return answer(acked)

    def _ack_one(self, index: int, ack: Json) -> Json:
        reader = self._reader(ack["partitionId"], ack.get("consumerGroup") or QUEUE_MODE)
        told = {"index": index, "transactionId": ack["transactionId"], "leaseReleased": False, "dlq": False}
        error = reader.fault(ack) if reader else "Message not found"
        if error or reader is None:
            return told | {"success": False, "error": error}
        return told | {"success": True, "error": None} | reader.settle(ack)

    def _extend(self, asked: Asked, lease: str) -> Answer:
        until = now() + timedelta(seconds=asked.body.get("seconds", 60))
        leased = [reader for one in self._partitions.values() for reader in one.readers if reader.holds(lease)]
        for reader in leased:
            reader.lease_until = max(reader.lease_until, until)
        error = None if leased else "Lease not found"
        expires = iso(until) if leased else None
        return answer([{"index": 0, "leaseId": lease, "success": bool(leased), "error": error, "expiresAt": expires}])

    def _transaction(self, asked: Asked) -> Answer:
        operations, name = asked.body.get("operations") or [], str(uuid4())
        if not operations:
            raise Refused(400, "bad-request", "operations array cannot be empty")
        if fault := next(filter(None, map(self._refusal, operations)), None):
            return answer({"transactionId": name, "success": False, "results": [], "error": fault})
        results: list[Json] = []
        for one in operations:
            done = [self._ack_one(0, one)] if one["type"] == "ack" else [self._push_one(0, n) for n in one["items"]]
            results += [{"index": len(results) + n, "type": one["type"], "success": True} for n in range(len(done))]
        self._changes.notify()
        return answer({"transactionId": name, "success": True, "results": results})

    def _refusal(self, operation: Json) -> str | None:
        """Why a transaction with this operation is refused."""
        if operation["type"] == "ack":
            reader = self._reader(operation["partitionId"], operation.get("consumerGroup") or QUEUE_MODE)
            return reader.fault(operation) if reader else "Message not found"
        for item in operation["items"]:
            if self._partition(item["queue"], item.get("partition", "Default")).find(item.get("transactionId", "")):
                return f"duplicate transactionId {item['transactionId']!r} in {item['queue']}"
        return None
