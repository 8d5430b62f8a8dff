"""Rate limits by address for sign-up, sign-in and invitations: each try costs a slow password hash."""

from ipaddress import IPv6Network, ip_address

from django.http import HttpRequest
from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerHour, RateLimitItemPerMinute

from registry.data import clock, rates
from registry.data.loop import sync_twin
from registry.edge.proxies import plain
from registry.errors import TooManyRequests

SIGN_UPS: RateLimitItem = RateLimitItemPerHour(60)  # enough for a class of students behind one address
CHANGES: RateLimitItem = RateLimitItemPerMinute(60)  # forms of the later steps
LOGINS: RateLimitItem = RateLimitItemPerMinute(20)  # successful and failed ones
EMAILS: RateLimitItem = RateLimitItemPerDay(
    50
)  # invitations of one tenant by e-mail, to people who did not ask for one

EMAILS_OF_A_PERSON: RateLimitItem = RateLimitItemPerHour(5)  # links of a forgotten password


async def count(request: HttpRequest, item: RateLimitItem, what: str) -> None:
    """Count one try of `what` by the client's address (see registry.edge.proxies). Raises TooManyRequests (429)."""
    await count_by(_home_of(request.META.get("REMOTE_ADDR", "")), item, what)


def _home_of(address: str) -> str:
    """An IPv4 address, or the first 64 bits of an IPv6 address: the least that a provider assigns to one customer."""
    try:
        ip = plain(ip_address(address))
    except ValueError:
        return address
    return str(IPv6Network((int(ip), 64), strict=False) if ip.version == 6 else ip)


async def count_by(whom: str, item: RateLimitItem, what: str) -> None:
    """Count one try of `what` by an address or a tenant. Raises TooManyRequests (429)."""
    counted = await rates.count(item, what, whom)
    if counted is not None and not counted[0]:
        seconds = max(1, round(counted[1].reset_time - clock.timestamp()))
        raise TooManyRequests(
            f"At most {item}. Please try again in {_in_words(seconds)}.", headers={"Retry-After": str(seconds)}
        )


def _in_words(seconds: int) -> str:
    for size, unit in ((3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{round(seconds / size)} {unit}"
    return f"{seconds} seconds"


count_sync = sync_twin(count)
