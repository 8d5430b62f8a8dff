"""Stream engine of the spill: a Redis stream per process and kind, drained by the owner of its lock (stream_locks.py).

    registry:<service>:spill:<kind>:logs           set of the streams' names
    registry:<service>:spill:<kind>:<name>         stream; one entry per record; consumer group `drain`
    registry:<service>:spill:<kind>:<name>:owner   lock: the process that drains it
    registry:<service>:spill:<kind>:aside          hash of the quarantined records, by id

Redis' `appendfsync` decides how durable an append is: with `always` it is on the disk before the answer; with `everysec` a
crash of the machine (not of the process) may lose up to a second. The stream that all processes share is in shared.py.
"""

import logging
import os
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

from django.conf import settings
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, OutOfMemoryError, RedisError, ResponseError

from queueing.spill.frames import pack, unpack
from queueing.spill.record import (
    Entry,
    Full,
    QuarantinedRecord,
    Record,
    StoreResult,
    check_room,
    decode_quarantined,
    encode_quarantined,
)
from queueing.spill.stream_locks import StreamLocks
from registry.data import identity, redis_health, redis_servers
from registry.errors import Unavailable

log = logging.getLogger(__name__)

LOCK_TTL = 10.0  # seconds of silence after which a process is taken for dead
ANSWER_LIMIT = 0.8  # seconds for Redis to answer: an append is answered within one second
REPLICA_LIMIT = 400  # milliseconds of it, for a replica to have an entry
TAKEOVER_EVERY = 1.0  # seconds between searches for streams of dead processes
SCAN_PAGE = 1000  # entries per request, where a whole stream is read
GROUP = "drain"
FIELD = b"r"


class StreamEngine:
    """The stream of one process and one kind, and the streams of dead processes."""

    name = "stream"
    shared = False
    _block: int | None = None  # milliseconds for which a read waits for a new entry

    def __init__(self, url: str, kind: str, *, limit: int, lock_ttl: float = LOCK_TTL, stream: str = "") -> None:
        self.kind, self.limit = kind, limit
        self.bytes = 0
        self.takeover_every = min(TAKEOVER_EVERY, lock_ttl / 4)
        self.process = f"{settings.REGISTRY_HOST}-{os.getpid()}-{secrets.token_hex(4)}"
        self._use = stream or "spill"  # named in the log when Redis fails
        self.prefix = f"{identity.prefix()}:spill:{kind}:"
        # Reopen a closed connection at once, but repeat nothing that timed out: the library's own retries would take several
        # times the limit.
        again = Retry(NoBackoff(), 1, supported_errors=(ConnectionError,))
        self._redis: Any = redis_servers.connect(
            url, socket_timeout=ANSWER_LIMIT, socket_connect_timeout=ANSWER_LIMIT, retry=again
        )
        self._replicated = redis_servers.is_replicated(url)
        self._stream = stream or self.process
        self.locks = StreamLocks(self._redis, self.prefix, self.process, own=self._stream, ttl=lock_ttl)
        self._claimed: set[str] = set()  # streams whose former owner's pending entries were claimed
        self._created = False

    @property
    def idle(self) -> float:
        return self.takeover_every

    def _key(self, name: str) -> str:
        return f"{self.prefix}{name}"

    # -- Appending -----------------------------------------------------------------------------------------

    async def append(self, records: Sequence[Record]) -> None:
        self.bytes += await self._add(records)

    async def _add(self, records: Sequence[Record]) -> int:
        """Append the records to the stream. Returns their size in bytes."""
        contents = [pack(record) for record in records]
        size = sum(map(len, contents))
        check_room(self.bytes, size, self.limit)
        try:
            if not self._created:
                await self._create()
            if self._replicated:
                await self._add_and_wait(contents)
            else:
                async with self._redis.pipeline(transaction=True) as pipe:
                    for content in contents:
                        pipe.xadd(self._key(self._stream), {FIELD: content})
                    await pipe.execute()
        except (RedisError, OSError) as error:
            self._created = False  # Redis may come back empty
            redis_health.record_error(self._use, error)
            raise Full("the spill cannot be written: Redis does not take it") from error
        redis_health.record_success(self._use)
        return size

    async def _add_and_wait(self, contents: Sequence[bytes]) -> None:
        """Append where a replica may take over: an entry is durable only when one has it. WAIT is about the writes of its own
        connection, so that it is sent behind them, and not within their transaction, where it would not wait."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.execute_command("MULTI")
            for content in contents:
                pipe.xadd(self._key(self._stream), {FIELD: content})
            pipe.execute_command("EXEC")
            pipe.execute_command("WAIT", 1, REPLICA_LIMIT)
            *_, replicas = await pipe.execute()
        if not replicas:
            raise RedisError("no replica has the entries")

    async def _create(self) -> None:
        await self._create_group(self._stream)  # before the lock: a stream is read once it is owned
        await self.locks.acquire(self._stream)
        self._created = True

    async def _create_group(self, name: str) -> None:
        with suppress(OutOfMemoryError):  # existing entries can still be drained
            await self._announce(name)
            try:
                await self._redis.xgroup_create(self._key(name), GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def _announce(self, name: str) -> None:
        """Let other processes find the stream by its name."""
        await self._redis.sadd(f"{self.prefix}logs", name)

    # -- Draining ------------------------------------------------------------------------------------------

    async def batch(self, limit: int) -> list[Entry]:
        try:
            for name in list(self.locks.owned):
                if found := await self._read(name, limit):
                    return [_entry(name, *one) for one in found]
                if name != self._stream:
                    await self._delete(name)
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise Unavailable("Redis does not answer") from error
            await self._restore()
        except (RedisError, OSError) as error:
            raise Unavailable("Redis does not answer") from error
        return []

    async def _restore(self) -> None:
        """Create the consumer groups again after Redis lost its data. The entries are lost unless Redis persisted them."""
        self.bytes = 0
        with _unavailable():
            for name in self.locks.owned:
                await self._create_group(name)

    async def _read(self, name: str, limit: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """First the entries that the former owner had read and not settled, for they are older; then new ones."""
        key = self._key(name)
        if name not in self._claimed:
            _, found, *_ = await self._redis.xautoclaim(key, GROUP, self.process, min_idle_time=0, count=limit)
            if found:
                return found
            self._claimed.add(name)
        reply: Any = await self._redis.xreadgroup(GROUP, self.process, {key: ">"}, count=limit, block=self._block)
        if not reply:
            return []
        return next(iter(reply.values()))[0] if isinstance(reply, dict) else reply[0][1]

    async def _delete(self, name: str) -> None:
        """Delete an empty stream of a dead process."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(self._key(name))
            self.locks.drop(pipe, name)
            pipe.srem(f"{self.prefix}logs", name)
            await pipe.execute()
        self.locks.owned.remove(name)

    async def settle(self, entries: Sequence[Entry], results: Sequence[StoreResult]) -> None:
        name = entries[0].position[0]
        ids = [entry.position[1] for entry in entries]
        with _unavailable():
            async with self._redis.pipeline(transaction=True) as pipe:
                for entry, result in zip(entries, results, strict=True):
                    if result.reason:
                        kept = QuarantinedRecord.of(entry, result.reason)
                        pipe.hset(f"{self.prefix}aside", kept.id, encode_quarantined(kept))
                pipe.xack(self._key(name), GROUP, *ids)
                pipe.xdel(self._key(name), *ids)
                await pipe.execute()
        self.bytes = max(0, self.bytes - sum(len(entry.raw) for entry in entries))

    # -- Taking over -----------------------------------------------------------------------------------------

    async def take_over(self) -> AsyncIterator[list[Entry]]:
        try:
            for name in await self._all_streams():
                if name != self._stream and name not in self.locks.owned and await self.locks.acquire(name):
                    await self._create_group(name)
                    found = [_entry(name, *one) for one in await self._redis.xrange(self._key(name))]
                    self.bytes += sum(len(entry.raw) for entry in found)
                    log.warning("taking over records of a dead process", extra={"stream": name, "records": len(found)})
                    yield found
        except (RedisError, OSError) as error:
            redis_health.record_error(self._use, error)

    async def heartbeat(self) -> None:
        try:
            await self.locks.renew()
        except (RedisError, OSError) as error:
            redis_health.record_error(self._use, error)

    # -- State -------------------------------------------------------------------------------------------------

    async def shared_length(self) -> int:
        with suppress(RedisError, OSError):
            return sum([await self._redis.xlen(self._key(name)) for name in self._readable()])
        return 0

    def _readable(self) -> list[str]:
        """The streams whose entries count for this process."""
        return list(self.locks.owned)

    async def _all_streams(self) -> list[str]:
        """The streams of all processes."""
        return [name.decode() for name in await self._redis.smembers(f"{self.prefix}logs")]

    async def oldest(self) -> datetime | None:
        with suppress(RedisError, OSError):
            for name in self._readable():
                for _, fields in await self._redis.xrange(self._key(name), count=1):
                    return unpack(fields[FIELD]).at
        return None

    async def close(self) -> None:
        with suppress(RedisError, OSError):
            for name in list(self.locks.owned):
                if redis_health.is_paused(self._use):  # Redis would not answer a release either: the locks expire
                    break
                await self._release(name)
        await self._redis.aclose()

    async def _release(self, name: str) -> None:
        """Release a stream; an empty one is deleted."""
        if await self._redis.xlen(self._key(name)):
            await self.locks.release(name)
        else:
            await self._delete(name)

    async def quarantined(self) -> list[QuarantinedRecord]:
        with _unavailable():
            kept = await self._redis.hvals(f"{self.prefix}aside")
        return sorted(map(decode_quarantined, kept), key=lambda one: one.at)

    async def count_quarantined(self) -> int:
        with suppress(RedisError, OSError):
            return await self._redis.hlen(f"{self.prefix}aside")
        return 0

    async def drop_quarantined(self, id: str) -> bool:
        with _unavailable():
            return bool(await self._redis.hdel(f"{self.prefix}aside", id))

    async def holds(self, tenant_id: int) -> bool:
        """Streams first: a record that leaves a stream meanwhile is stored or already quarantined."""
        with _unavailable():
            for name in await self._all_streams():
                async for entry in self._entries(name):
                    if entry.record and entry.record.tenant_id == tenant_id:
                        return True
        return any(one.record and one.record.tenant_id == tenant_id for one in await self.quarantined())

    async def _entries(self, name: str) -> AsyncIterator[Entry]:
        """All entries of a stream, read page by page."""
        after = "-"
        while found := await self._redis.xrange(self._key(name), min=after, count=SCAN_PAGE):
            for one in found:
                yield _entry(name, *one)
            after = f"({found[-1][0].decode()}"


@contextmanager
def _unavailable() -> Iterator[None]:
    """Turn errors of Redis into Unavailable (503)."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise Unavailable("Redis does not answer") from error


def _entry(name: str, id: bytes, fields: dict[bytes, bytes]) -> Entry:
    raw = fields.get(FIELD, b"")
    try:
        return Entry(unpack(raw), raw, (name, id))
    except ValueError as error:
        return Entry(None, raw, (name, id), str(error))
