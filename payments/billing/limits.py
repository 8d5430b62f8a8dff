"""How often one address may try to sign up, sign in, or follow an invitation: strangers cost a slow hash each time."""

from django.conf import settings
from django.http import HttpRequest
from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerHour, RateLimitItemPerMinute

from registry import rates
from registry.errors import TooManyRequests
from registry.sync import sync_twin

SIGN_UPS: RateLimitItem = RateLimitItemPerHour(60)  # a class of students behind one address, and no more
CHANGES: RateLimitItem = RateLimitItemPerMinute(60)  # forms of the later steps
LOGINS: RateLimitItem = RateLimitItemPerMinute(20)  # right and wrong ones
LETTERS: RateLimitItem = RateLimitItemPerDay(50)  # of one tenant, to people who never asked for one


def address_of(request: HttpRequest) -> str:
    """The caller's address: behind the proxy that production stands behind, the one that the proxy has seen."""
    if settings.PRODUCTION and (seen := request.META.get("HTTP_X_FORWARDED_FOR", "")):
        return seen.rpartition(",")[2].strip()
    return request.META.get("REMOTE_ADDR", "")


async def count(request: HttpRequest, item: RateLimitItem, what: str) -> None:
    """One more of `what` from this address. Raises TooManyRequests (429)."""
    await count_by(address_of(request), item, what)


async def count_by(whom: str, item: RateLimitItem, what: str) -> None:
    """One more of `what` by an address or a tenant. Raises TooManyRequests (429)."""
    counted = await rates.count(item, what, whom)
    if counted is not None and not counted[0]:
        raise TooManyRequests(f"That was {item.amount} times already. Please try again later.")


count_sync = sync_twin(count)
