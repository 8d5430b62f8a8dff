"""How often one address may try to sign up, sign in, or follow an invitation: strangers cost a slow hash each time."""

import asyncio
import logging
from ipaddress import IPv6Network, ip_address

from django.conf import settings
from django.http import HttpRequest
from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter

from registry.errors import TooManyRequests
from registry.proxies import plain
from registry.sync import sync_twin

log = logging.getLogger(__name__)

SIGN_UPS: RateLimitItem = RateLimitItemPerHour(60)  # a class of students behind one address, and no more
CHANGES: RateLimitItem = RateLimitItemPerMinute(60)  # forms of the later steps
LOGINS: RateLimitItem = RateLimitItemPerMinute(20)  # right and wrong ones
LETTERS: RateLimitItem = RateLimitItemPerDay(50)  # of one tenant, to people who never asked for one
WITHIN = 1.0  # seconds for Redis; without it nobody is limited

_limiters: dict[asyncio.AbstractEventLoop, MovingWindowRateLimiter] = {}


def _limiter() -> MovingWindowRateLimiter:
    loop = asyncio.get_running_loop()
    if loop not in _limiters:
        _limiters[loop] = MovingWindowRateLimiter(RedisStorage(f"async+{settings.REDIS_URL}", implementation="redispy"))
    return _limiters[loop]


async def count(request: HttpRequest, item: RateLimitItem, what: str) -> None:
    """One more of `what` from the caller's address, as registry.proxies found it. Raises TooManyRequests (429)."""
    await count_by(_home_of(request.META.get("REMOTE_ADDR", "")), item, what)


def _home_of(address: str) -> str:
    """An IPv4 address as it is; of an IPv6 address its first 64 bits, which are what one customer of a provider gets at least."""
    try:
        ip = plain(ip_address(address))
    except ValueError:
        return address
    return str(IPv6Network((int(ip), 64), strict=False) if ip.version == 6 else ip)


async def count_by(whom: str, item: RateLimitItem, what: str) -> None:
    """One more of `what` by an address or a tenant. Raises TooManyRequests (429)."""
    try:
        async with asyncio.timeout(WITHIN):
            allowed = await _limiter().hit(item, what, whom)
    except Exception as error:
        log.warning("rate limiter away, letting requests pass", extra={"error": repr(error)})
        return
    if not allowed:
        raise TooManyRequests(f"That was {item.amount} times already. Please try again later.")


count_sync = sync_twin(count)
