"""Rate limits of API keys (requirement A8), counted in Redis, with the RateLimit-* headers of a response."""

from limits import RateLimitItem, parse

from registry.data import clock, rates
from registry.errors import Forbidden, Invalid, TooManyRequests


async def count_requests(limit: RateLimitItem | None, key: str, *, cost: int = 1) -> dict[str, str]:
    """Count `cost` requests against the limit of `key`, and return the RateLimit-* headers.

    Raises TooManyRequests (429) with Retry-After. Raises Invalid (422) when `cost` exceeds the limit of a whole window; then
    nothing is counted. Counts nothing while Redis is unavailable.
    """
    if limit is None:
        return {}
    if not limit.amount:
        raise Forbidden(f"this key's rate limit is {limit}: it lets nothing pass")
    if cost > limit.amount:
        message = f"are {cost}; this key's rate limit is {limit}, so at most {limit.amount} may come at once"
        raise Invalid(f"items {message}", errors=[{"field": "items", "message": message}])
    counted = await rates.count(limit, "key", key, cost=cost)
    if counted is None:
        return {}
    allowed, window = counted
    reset = max(1, round(window.reset_time - clock.timestamp()))
    headers = {
        "RateLimit-Limit": str(limit.amount),
        "RateLimit-Remaining": str(max(0, window.remaining)),
        "RateLimit-Reset": str(reset),
    }
    if not allowed:
        # One request is allowed at `reset`; several are allowed for certain only after a whole window.
        after = reset if cost == 1 else limit.get_expiry()
        raise TooManyRequests(f"at most {limit}", headers={**headers, "Retry-After": str(after)})
    return headers


def parse_limit(text: str) -> RateLimitItem:
    """Parse a limit such as 100/second. Raises ValueError, also for a limit of zero."""
    limit = parse(text)
    if not limit.amount:
        raise ValueError(f"{text!r} would let nothing pass")
    return limit
