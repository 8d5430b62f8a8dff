"""Processors of kind `http` (contract section 4), such as `default` and `fallback`."""

import json
from typing import ClassVar, Self

import aiohttp

from payments.money import decimal_text
from payments.processors.base import Account, Health, Order, Outcome, Result
from registry.api import iso

SEND_TIMEOUT = 6.0  # seconds; longer than the slowest answer that still books (5 s)
LOOK_UP_TIMEOUT = 3.0  # seconds
HEALTH_TIMEOUT = 4.0  # seconds; a second caller within 5 s is made to wait, and then its answer is old anyway
CONNECTIONS = 400  # per endpoint: as many as a drain has in flight, for who waits for one uses up the answer's time
KEEP_ALIVE = 75  # seconds
LARGEST_ANSWER = 64 * 1024  # bytes

# The request was refused as such: sending it again would get the same answer.
DECLINED = frozenset({400, 402, 406, 410, 413, 415, 451})
# Turned away before booking; whether to blame the payment or the account, another try may go through.
TURNED_AWAY = frozenset({401, 403, 404, 405, 407, 421, 426, 500})
OVERLOADED = frozenset({425, 429})


class HttpProcessor:
    """A client of one endpoint with persistent connections."""

    kind: ClassVar[str] = "http"
    polled: ClassVar[bool] = True

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=KEEP_ALIVE, ttl_dns_cache=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Content-Type": "application/json", "User-Agent": "Registry"},
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._session.close()

    async def send(self, order: Order, account: Account) -> Outcome:
        body = (
            f'{{"correlationId":"{order.correlation_id}","amount":{decimal_text(order.amount, order.currency)},'
            f'"requestedAt":"{iso(order.requested_at)}"}}'
        )
        try:
            async with self._session.post(
                f"{account.url}/payments", data=body.encode(), timeout=_SEND, allow_redirects=False
            ) as answer:
                return judge(answer.status, await _body(answer), answer.headers.get("Retry-After"))
        except aiohttp.ClientConnectorError as error:
            # No connection: it never saw the payment.
            return Outcome(Result.NOT_BOOKED, code=_code(error), healthy=False, outage=True)
        except TimeoutError:
            return Outcome(Result.UNKNOWN, code="timeout", healthy=False)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Outcome(Result.UNKNOWN, code=_code(error), healthy=False)

    async def look_up(self, order: Order, account: Account) -> Outcome:
        try:
            async with self._session.get(
                f"{account.url}/payments/{order.correlation_id}", timeout=_LOOK_UP, allow_redirects=False
            ) as answer:
                body = await _body(answer)
                if answer.status == 200 and _is_object(body):
                    return Outcome(Result.BOOKED, code="looked_up")
                if answer.status == 404:
                    return Outcome(Result.NOT_BOOKED, code="not_there_yet")
                return Outcome(Result.UNKNOWN, code=f"http_{answer.status}")
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            return Outcome(Result.UNKNOWN, code=_code(error), healthy=False)

    async def health(self, account: Account) -> Health | None:
        try:
            async with self._session.get(f"{account.url}/payments/service-health", timeout=_HEALTH) as answer:
                if answer.status != 200:
                    return None
                said = json.loads(await _body(answer))
                return Health(failing=bool(said["failing"]), min_response_ms=int(said["minResponseTime"]))
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError, KeyError, TypeError):
            return None


_SEND = aiohttp.ClientTimeout(total=SEND_TIMEOUT, sock_connect=2.0)
_LOOK_UP = aiohttp.ClientTimeout(total=LOOK_UP_TIMEOUT, sock_connect=2.0)
_HEALTH = aiohttp.ClientTimeout(total=HEALTH_TIMEOUT, sock_connect=2.0)


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    """All of it, however many pieces it comes in; what is longer than LARGEST_ANSWER is cut, and then no JSON."""
    body = b""
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > LARGEST_ANSWER:
            answer.close()
            break
    return body


def judge(status: int, body: bytes, retry_after: str | None) -> Outcome:
    """What an answer to a send proves. Whatever is not in the contract proves nothing."""
    if status == 200:
        if not body or _is_object(body):
            return Outcome(Result.BOOKED, code="http_200")
        return Outcome(Result.UNKNOWN, code="garbage", healthy=False)
    if status == 422:
        return Outcome(Result.BOOKED, code="already_booked")
    if status in OVERLOADED:
        wait = float(retry_after) if retry_after and retry_after.isdecimal() else 1.0
        return Outcome(
            Result.NOT_BOOKED, code=f"http_{status}", healthy=False, outage=True, retry_after=min(wait, 60.0)
        )
    if status in TURNED_AWAY:
        return Outcome(Result.NOT_BOOKED, code=f"http_{status}", healthy=False, outage=status == 500)
    if status in DECLINED:
        return Outcome(Result.DECLINED, code=f"http_{status}")
    return Outcome(Result.UNKNOWN, code=f"http_{status}", healthy=False)


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:
        return False


def _code(error: Exception) -> str:
    return "timeout" if isinstance(error, TimeoutError) else type(error).__name__[:50]
