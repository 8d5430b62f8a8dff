"""Messages between processes over the Redis channel layer: `send` to a group, `listen` to a group."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from channels.layers import get_channel_layer
from channels_redis.pubsub import RedisPubSubChannelLayer

from registry.data import identity, redis_health
from registry.data.loop import PerLoop

RETRY = 1.0  # seconds between attempts to join a group
SEND_LIMIT = 1.0  # seconds for Redis to accept a message; receivers also poll


class OwnLayer(RedisPubSubChannelLayer):
    """The channel layer with the service's name as prefix: pub/sub ignores Redis database numbers, so two services on one Redis
    would receive each other's messages."""

    def __init__(self, **config: Any) -> None:
        super().__init__(prefix=f"{identity.prefix()}:", **config)


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
            channel = await layer().new_channel(group)
            await layer().group_add(group, channel)
            redis_health.record_success(group)
            while True:
                receive((await layer().receive(channel))["data"])
        except Exception as error:
            redis_health.record_error(group, error)
            with suppress(Exception):
                _drop_channels(group)
            await asyncio.sleep(RETRY)


def _drop_channels(group: str) -> None:
    """Drop the channels of failed attempts: the layer keeps them and would collect messages that nobody reads."""
    joined = layer()
    stale = {name for name in joined.channels if name.startswith(f"{joined.prefix}{group}")}
    for name in stale:
        del joined.channels[name]
    for members in joined.groups.values():
        members -= stale
