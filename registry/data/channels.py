"""The channel layer under the service's own name, and how a process listens to one of its groups for ever."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from channels.layers import get_channel_layer
from channels_redis.pubsub import RedisPubSubChannelLayer

from registry.data import identity, redis_trouble
from registry.data.loop import PerLoop

RETRY = 1.0  # seconds before a group that could not be joined is tried again
SEND_LIMIT = 1.0  # seconds for Redis to take a message; what it does not take in time is found without it


class OwnLayer(RedisPubSubChannelLayer):
    """Messages know no database numbers: another service on the same Redis hears none of ours, and we none of its."""

    def __init__(self, **config: Any) -> None:
        super().__init__(prefix=f"{identity.prefix()}:", **config)


async def _flush(used: set[Any]) -> None:
    for layer in used:
        with suppress(Exception):  # Redis may be away
            await layer.flush()


layers: PerLoop[set[Any]] = PerLoop(set, close=_flush)  # those used; a layer keeps the connections of each loop apart


def layer() -> Any:
    """The channel layer, noted so that the loop's end closes its connections."""
    found = get_channel_layer()
    layers.get().add(found)
    return found


async def send(group: str, data: bytes) -> None:
    """Tell everybody who listens to `group`. Raises what went wrong; it is noted then."""
    try:
        async with asyncio.timeout(SEND_LIMIT):
            await layer().group_send(group, {"type": group, "data": data})
    except Exception as error:
        redis_trouble.failed(group, error)
        raise
    redis_trouble.served(group)


async def listen(group: str, take: Callable[[bytes], None]) -> None:
    """Hand each message of `group` to `take`, until cancelled."""
    while True:
        try:
            channel = await layer().new_channel(group)
            await layer().group_add(group, channel)
            redis_trouble.served(group)
            while True:
                take((await layer().receive(channel))["data"])
        except Exception as error:
            redis_trouble.failed(group, error)
            with suppress(Exception):
                _forget(group)
            await asyncio.sleep(RETRY)


def _forget(group: str) -> None:
    """The layer keeps the channel of a try that failed, and would gather messages in it that nobody reads."""
    joined = layer()
    stale = {name for name in joined.channels if name.startswith(f"{joined.prefix}{group}")}
    for name in stale:
        del joined.channels[name]
    for members in joined.groups.values():
        members -= stale
