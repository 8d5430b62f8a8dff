"""The spill in Redis Streams: a stream per process and kind, owned by a lock that lapses when its process dies.

    registry:<service>:spill:<kind>:logs           set of the streams' names
    registry:<service>:spill:<kind>:<name>         stream; one entry, one record; consumer group `drain`
    registry:<service>:spill:<kind>:<name>:owner   who drains it; lapses when that process falls silent
    registry:<service>:spill:<kind>:aside          hash: what was set aside, by id

How durable an append is, Redis' `appendfsync` decides: `always`, on the disk before the answer; `everysec`, up to a
second may be lost with the machine (not with the process). The one stream of all processes is shared.py.
"""

import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, OutOfMemoryError, RedisError, ResponseError

from queueing.spill.frames import pack, unpack
from queueing.spill.record import Aside, Full, Item, Record, Verdict, aside_id
from registry.data import identity, redis_trouble
from registry.errors import Unavailable

log = logging.getLogger(__name__)

HOLD = 10.0  # seconds of silence after which a process is taken for dead
ANSWER_LIMIT = 0.8  # seconds for Redis to answer: who appends was promised an answer within one
LOOK_EVERY = 1.0  # seconds between searches for what dead processes left
LOOKED_AT = 1000  # entries per request, where a stream is looked through
GROUP = "drain"
FIELD = b"r"

_RENEW = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0"
_RELEASE = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Aside).decode


class StreamEngine:
    """The stream of one process and one kind, and the streams that dead processes left."""

    name = "stream"
    shared = False
    _block: int | None = None  # milliseconds that a read waits for a new entry

    def __init__(self, url: str, kind: str, *, limit: int, hold: float = HOLD) -> None:
        self.kind, self.limit, self.hold = kind, limit, hold
        self.bytes = 0
        self.look_every = min(LOOK_EVERY, hold / 4)
        self.me = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._use = "spill"  # in the log, when Redis fails
        self.prefix = f"{identity.prefix()}:spill:{kind}:"
        # A connection that was closed meanwhile is opened anew, at once. What is not answered is not asked again: the library
        # would go on for several times the limit.
        again = Retry(NoBackoff(), 1, supported_errors=(ConnectionError,))
        self._redis: Any = Redis.from_url(
            url, socket_timeout=ANSWER_LIMIT, socket_connect_timeout=ANSWER_LIMIT, retry=again
        )
        self._name = self.me
        self._owned: list[str] = []  # to drain, in this order; our own is the last
        self._claimed: set[str] = set()  # those whose former owner's pending entries are ours by now
        self._made = False
        self._renewed = time.monotonic()

    @property
    def idle(self) -> float:
        return self.look_every

    def _key(self, name: str) -> str:
        return f"{self.prefix}{name}"

    # -- Appending -----------------------------------------------------------------------------------------

    async def append(self, records: Sequence[Record]) -> None:
        self.bytes += await self._add(records)

    async def _add(self, records: Sequence[Record]) -> int:
        """Append the records to the stream; their bytes."""
        contents = [pack(record) for record in records]
        size = sum(map(len, contents))
        if self.bytes + size > self.limit:
            raise Full(f"the spill holds {self.bytes} bytes of at most {self.limit}")
        try:
            if not self._made:
                await self._make()
            async with self._redis.pipeline(transaction=True) as pipe:
                for content in contents:
                    pipe.xadd(self._key(self._name), {FIELD: content})
                await pipe.execute()
        except (RedisError, OSError) as error:
            self._made = False  # it may come back empty
            redis_trouble.failed(self._use, error)
            raise Full("the spill cannot be written: Redis does not take it") from error
        redis_trouble.served(self._use)
        return size

    async def _make(self) -> None:
        await self._prepare(self._name)  # first: once it is owned it is read
        await self._own(self._name)
        self._made = True

    async def _prepare(self, name: str) -> None:
        with suppress(OutOfMemoryError):  # what is there can be drained all the same
            await self._enlist(name)
            try:
                await self._redis.xgroup_create(self._key(name), GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def _enlist(self, name: str) -> None:
        """Let other processes find the stream by its name."""
        await self._redis.sadd(f"{self.prefix}logs", name)

    async def _own(self, name: str) -> bool:
        """Whether it is ours to drain from now on."""
        if name not in self._owned:
            owner = f"{self._key(name)}:owner"
            try:
                free = await self._redis.set(owner, self.me, nx=True, px=int(self.hold * 1000))
            except OutOfMemoryError:
                # A lock is a new key, but to read and remove entries needs no room: draining is what makes some. Two who drain
                # share the entries, so that only the order between their batches is lost.
                free = not await self._redis.exists(owner)
            if not free:
                return False
            if name == self._name:
                self._owned.append(name)
            else:
                self._owned.insert(0, name)
        return True

    # -- Draining ------------------------------------------------------------------------------------------

    async def batch(self, limit: int) -> list[Item]:
        try:
            for name in list(self._owned):
                if found := await self._read(name, limit):
                    return [_item(name, *entry) for entry in found]
                if name != self._name:
                    await self._forget(name)
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise Unavailable("Redis does not answer") from error
            await self._restore()
        except (RedisError, OSError) as error:
            raise Unavailable("Redis does not answer") from error
        return []

    async def _restore(self) -> None:
        """Redis came back empty; what it had lost, only its own durability could have kept."""
        self.bytes = 0
        try:
            for name in self._owned:
                await self._prepare(name)
        except (RedisError, OSError) as error:
            raise Unavailable("Redis does not answer") from error

    async def _read(self, name: str, limit: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        """First what its former owner had in hand: that is older."""
        key = self._key(name)
        if name not in self._claimed:
            _, found, *_ = await self._redis.xautoclaim(key, GROUP, self.me, min_idle_time=0, count=limit)
            if found:
                return found
            self._claimed.add(name)
        said: Any = await self._redis.xreadgroup(GROUP, self.me, {key: ">"}, count=limit, block=self._block)
        if not said:
            return []
        return next(iter(said.values()))[0] if isinstance(said, dict) else said[0][1]

    async def _forget(self, name: str) -> None:
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(self._key(name), f"{self._key(name)}:owner")
            pipe.srem(f"{self.prefix}logs", name)
            await pipe.execute()
        self._owned.remove(name)

    async def settle(self, items: Sequence[Item], verdicts: Sequence[Verdict]) -> None:
        name = items[0].place[0]
        ids = [item.place[1] for item in items]
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                for item, verdict in zip(items, verdicts, strict=True):
                    if verdict.reason:
                        id = aside_id(item)
                        aside = Aside(
                            id, datetime.now(UTC), verdict.reason, item.record, b"" if item.record else item.raw
                        )
                        pipe.hset(f"{self.prefix}aside", id, _encode(aside))
                pipe.xack(self._key(name), GROUP, *ids)
                pipe.xdel(self._key(name), *ids)
                await pipe.execute()
        except (RedisError, OSError) as error:
            raise Unavailable("Redis does not answer") from error
        self.bytes = max(0, self.bytes - sum(len(item.raw) for item in items))

    # -- The dead ------------------------------------------------------------------------------------------

    async def adopt(self) -> AsyncIterator[list[Item]]:
        try:
            for raw in await self._redis.smembers(f"{self.prefix}logs"):
                name = raw.decode()
                if name != self._name and name not in self._owned and await self._own(name):
                    await self._prepare(name)
                    found = [_item(name, *entry) for entry in await self._redis.xrange(self._key(name))]
                    self.bytes += sum(len(item.raw) for item in found)
                    log.warning("taking over what a dead process left", extra={"stream": name, "records": len(found)})
                    yield found
        except (RedisError, OSError) as error:
            redis_trouble.failed(self._use, error)

    async def beat(self) -> None:
        """Renew what we hold; what was lost meanwhile (a long pause) is somebody else's now."""
        if not self._owned or time.monotonic() - self._renewed < self.hold / 5:
            return
        self._renewed = time.monotonic()
        try:
            for name in list(self._owned):
                key = f"{self._key(name)}:owner"
                if not await self._redis.eval(_RENEW, 1, key, self.me, int(self.hold * 1000)):
                    self._owned.remove(name)
                    if name == self._name:
                        await self._own(name)
        except (RedisError, OSError) as error:
            redis_trouble.failed(self._use, error)

    # -- How it is -----------------------------------------------------------------------------------------

    async def waits(self) -> int:
        with suppress(RedisError, OSError):
            return sum([await self._redis.xlen(self._key(name)) for name in self._read_by_us()])
        return 0

    def _read_by_us(self) -> list[str]:
        return list(self._owned)

    async def oldest(self) -> datetime | None:
        with suppress(RedisError, OSError):
            for name in self._read_by_us():
                for _, fields in await self._redis.xrange(self._key(name), count=1):
                    return unpack(fields[FIELD]).at
        return None

    async def close(self) -> None:
        with suppress(RedisError, OSError):
            for name in list(self._owned):
                if redis_trouble.rests(self._use):  # it would not let go either: the locks lapse
                    break
                await self._let_go(name)
        await self._redis.aclose()

    async def _let_go(self, name: str) -> None:
        if await self._redis.xlen(self._key(name)):
            await self._release(name)
        else:
            await self._forget(name)

    async def _release(self, name: str) -> None:
        await self._redis.eval(_RELEASE, 1, f"{self._key(name)}:owner", self.me)

    async def asides(self) -> list[Aside]:
        try:
            kept = await self._redis.hvals(f"{self.prefix}aside")
        except (RedisError, OSError) as error:
            raise Unavailable("Redis does not answer") from error
        return sorted(map(_decode, kept), key=lambda aside: aside.at)

    async def count_asides(self) -> int:
        with suppress(RedisError, OSError):
            return await self._redis.hlen(f"{self.prefix}aside")
        return 0

    async def drop_aside(self, id: str) -> bool:
        try:
            return bool(await self._redis.hdel(f"{self.prefix}aside", id))
        except (RedisError, OSError) as error:
            raise Unavailable("Redis does not answer") from error

    async def holds(self, tenant_id: int) -> bool:
        """Streams first: what leaves one meanwhile is stored, or aside by then."""
        try:
            for name in await self._everywhere():
                async for item in self._items(name):
                    if item.record and item.record.tenant_id == tenant_id:
                        return True
            return any(aside.record and aside.record.tenant_id == tenant_id for aside in await self.asides())
        except (RedisError, OSError) as error:
            raise Unavailable("Redis does not answer") from error

    async def _everywhere(self) -> list[str]:
        """The streams of all processes."""
        return [name.decode() for name in await self._redis.smembers(f"{self.prefix}logs")]

    async def _items(self, name: str) -> AsyncIterator[Item]:
        """All of a stream, some at a time."""
        after = "-"
        while found := await self._redis.xrange(self._key(name), min=after, count=LOOKED_AT):
            for entry in found:
                yield _item(name, *entry)
            after = f"({found[-1][0].decode()}"


def _item(name: str, id: bytes, fields: dict[bytes, bytes]) -> Item:
    raw = fields.get(FIELD, b"")
    try:
        return Item(unpack(raw), raw, (name, id))
    except ValueError as error:
        return Item(None, raw, (name, id), str(error))
