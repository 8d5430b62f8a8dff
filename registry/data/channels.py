"""Messages between processes over the Redis channel layer: `send` to a group, `listen` to a group."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from channels.layers import get_channel_layer
from channels_redis.pubsub import RedisPubSubChannelLayer, RedisPubSubLoopLayer, RedisSingleShardConnection

from registry.data import identity, redis_health, redis_servers
from registry.data.loop import PerLoop

RETRY = 0.5  # seconds between attempts to join a group
SEND_LIMIT = 1.0  # seconds for Redis to accept a message; receivers also poll
PING_EVERY = 0.5  # seconds without a message, after which a listener sends itself one
UNHEARD = 2  # of its own messages that do not arrive, until a listener connects anew


class OwnServer(RedisSingleShardConnection):
    """A server of the layer; its connections are made like all others."""

    _redis: Any
    _pubsub: Any

    def _ensure_redis(self) -> None:
        if self._redis is None:
            self._redis = redis_servers.connect(
                self.host["address"],
                socket_timeout=SEND_LIMIT,
                socket_connect_timeout=SEND_LIMIT,
                socket_keepalive=True,
            )
            self._pubsub = self._redis.pubsub()


class OwnLayer(RedisPubSubChannelLayer):
    """The channel layer with the service's name as prefix: pub/sub ignores Redis database numbers, so two services on one Redis
    would receive each other's messages."""

    def __init__(self, **config: Any) -> None:
        super().__init__(prefix=f"{identity.prefix()}:", **config)

    def _get_layer(self) -> RedisPubSubLoopLayer:
        found = super()._get_layer()
        if not isinstance(found._shards[0], OwnServer):  # it was made just now
            found._shards = [OwnServer(server.host, found) for server in found._shards]
        return found


async def _flush(used: set[Any]) -> None:
    for layer in used:
        with suppress(Exception):  # Redis may be unavailable
            await layer.flush()


layers: PerLoop[set[Any]] = PerLoop(set, close=_flush)  # the layers used on a loop; each has connections per loop


def layer() -> Any:
    """The channel layer; `end_loop` closes its connections."""
    current = get_channel_layer()
    layers.get().add(current)
    return current


async def send(group: str, data: bytes) -> None:
    """Send `data` to every listener of `group`. Raises the error after recording it."""
    try:
        async with asyncio.timeout(SEND_LIMIT):
            await layer().group_send(group, {"type": group, "data": data})
    except Exception as error:
        redis_health.record_error(group, error)
        raise
    redis_health.record_success(group)


async def listen(group: str, receive: Callable[[bytes], None]) -> None:
    """Pass each message of `group` to `receive`, until cancelled."""
    while True:
        try:
            async with asyncio.timeout(SEND_LIMIT):
                channel = await layer().new_channel(group)
                await layer().group_add(group, channel)
            redis_health.record_success(group)
            while True:
                if data := await _next(group, channel):
                    receive(data)
        except Exception as error:
            redis_health.record_error(group, error)
            with suppress(Exception):
                _drop_channels(group)
            if isinstance(error, TimeoutError):
                await _reconnect()
            await asyncio.sleep(RETRY)


class Unheard(TimeoutError):
    """Redis accepts messages, and none arrives: the subscription is at a server that hangs, or that is not the master any more."""


async def _next(group: str, channel: str) -> bytes:
    """The next message. In a pause it sends itself an empty one: a subscription that is dead says nothing of it."""
    receiving = asyncio.ensure_future(layer().receive(channel))
    pings = 0
    try:
        while not (await asyncio.wait({receiving}, timeout=PING_EVERY))[0]:
            if channel not in layer().channels:  # another listener of this loop had to reconnect
                raise ConnectionResetError("the subscription was dropped")
            if pings == UNHEARD:
                raise Unheard
            pings += 1
            async with asyncio.timeout(SEND_LIMIT):
                await layer().send(channel, {"type": group, "data": b""})
        return receiving.result()["data"]
    finally:
        if not receiving.done():
            receiving.cancel()
            await asyncio.wait({receiving}, timeout=SEND_LIMIT)


async def _reconnect() -> None:
    with suppress(Exception):
        async with asyncio.timeout(SEND_LIMIT):
            await layer().flush()


def _drop_channels(group: str) -> None:
    """Drop the channels of failed attempts: the layer keeps them and would collect messages that nobody reads."""
    joined = layer()
    stale = {name for name in joined.channels if name.startswith(f"{joined.prefix}{group}")}
    for name in stale:
        del joined.channels[name]
    for members in joined.groups.values():
        members -= stale
