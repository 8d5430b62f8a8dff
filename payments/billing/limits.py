"""How often one address may try to sign up, sign in, or follow an invitation: strangers cost a slow hash each time."""

import time
from ipaddress import IPv6Network, ip_address

from django.http import HttpRequest
from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerHour, RateLimitItemPerMinute

from registry.data import rates
from registry.data.loop import sync_twin
from registry.edge.proxies import plain
from registry.errors import TooManyRequests

SIGN_UPS: RateLimitItem = RateLimitItemPerHour(60)  # a class of students behind one address, and no more
CHANGES: RateLimitItem = RateLimitItemPerMinute(60)  # forms of the later steps
LOGINS: RateLimitItem = RateLimitItemPerMinute(20)  # right and wrong ones
LETTERS: RateLimitItem = RateLimitItemPerDay(50)  # of one tenant, to people who never asked for one


async def count(request: HttpRequest, item: RateLimitItem, what: str) -> None:
    """One more of `what` from the caller's address, as registry.edge.proxies found it. Raises TooManyRequests (429)."""
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
    counted = await rates.count(item, what, whom)
    if counted is not None and not counted[0]:
        seconds = max(1, round(counted[1].reset_time - time.time()))
        raise TooManyRequests(
            f"At most {item}. Please try again in {_in_words(seconds)}.", headers={"Retry-After": str(seconds)}
        )


def _in_words(seconds: int) -> str:
    for size, unit in ((3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{round(seconds / size)} {unit}"
    return f"{seconds} seconds"


count_sync = sync_twin(count)
