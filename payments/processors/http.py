"""Processors of kind `http` (contract section 4), such as `default` and `fallback`."""

import json
from typing import ClassVar, Self

from payments.money import decimal_text
from payments.processors.base import Account, Health, Order, Outcome, Result
from registry.edge.api import iso
from registry.http.client import Client, HttpError, NotSent
from registry.http.ssrf import Outside

SEND_TIMEOUT = 6.0  # seconds; longer than the slowest answer that still books (5 s)
LOOK_UP_TIMEOUT = 3.0  # seconds
LONGEST_SAID = 3_600_000  # milliseconds; an upper bound for a reported minResponseTime
HEALTH_TIMEOUT = 4.0  # seconds; a second caller within 5 s has to wait, and its answer would be stale
CONNECTIONS = 400  # per endpoint: as many as a worker may have in flight there (settle/concurrency.py); waiting for a connection would use up the time-out
KEEP_ALIVE = 75  # seconds
LARGEST_ANSWER = 64 * 1024  # bytes

# The request itself was refused: sending it again would get the same answer.
DECLINED = frozenset({400, 402, 406, 410, 413, 415, 451})
# Refused before booking, because of the account: another try may succeed; other accounts are not affected.
TURNED_AWAY = frozenset({401, 403, 404, 405, 407, 421, 426})
OVERLOADED = frozenset({425, 429})


class HttpProcessor:
    """A client of one endpoint with persistent connections."""

    kind: ClassVar[str] = "http"
    polled: ClassVar[bool] = True

    async def __aenter__(self) -> Self:
        self._clients: dict[tuple[str, bool], Client] = {}
        self._outside: Outside | None = None
        return self

    async def __aexit__(self, *exc: object) -> None:
        for client in self._clients.values():
            await client.close()
        if self._outside is not None:
            self._outside.close()

    def _client(self, account: Account) -> Client:
        """Raises BadAddress."""
        which = account.url, account.public_only
        client = self._clients.get(which)
        if client is None:
            if account.public_only and self._outside is None:
                self._outside = Outside()
            client = self._clients[which] = Client(
                account.url,
                connections=CONNECTIONS,
                keep_alive=KEEP_ALIVE,
                largest_body=LARGEST_ANSWER,
                headers={"Content-Type": "application/json", "User-Agent": "Registry"},
                resolve=self._outside.resolve if account.public_only and self._outside else None,
            )
        return client

    async def send(self, order: Order, account: Account) -> Outcome:
        body = (
            f'{{"correlationId":"{order.correlation_id}","amount":{decimal_text(order.amount, order.currency)},'
            f'"requestedAt":"{iso(order.requested_at)}"}}'
        )
        try:
            answer = await self._client(account).request("POST", "/payments", body.encode(), limit=SEND_TIMEOUT)
            return judge(answer.status, answer.body, answer.header("Retry-After"))
        except NotSent as error:
            # No connection: the processor never saw the payment.
            return Outcome(Result.NOT_BOOKED, code=_code(error), healthy=False, outage=True)
        except (HttpError, OSError, ValueError) as error:
            return Outcome(Result.UNKNOWN, code=_code(error), healthy=False)

    async def look_up(self, order: Order, account: Account) -> Outcome:
        try:
            answer = await self._client(account).request(
                "GET", f"/payments/{order.correlation_id}", limit=LOOK_UP_TIMEOUT
            )
            if answer.status == 200 and _is_object(answer.body):
                return Outcome(Result.BOOKED, code="looked_up")
            if answer.status == 404:
                return Outcome(Result.NOT_BOOKED, code="not_there_yet")
            return Outcome(Result.UNKNOWN, code=f"http_{answer.status}")
        except (HttpError, OSError, ValueError) as error:
            return Outcome(Result.UNKNOWN, code=_code(error), healthy=False)

    async def health(self, account: Account) -> Health | None:
        try:
            answer = await self._client(account).request("GET", "/payments/service-health", limit=HEALTH_TIMEOUT)
            if answer.status != 200:
                return None
            said = json.loads(answer.body)
            longest = min(max(said["minResponseTime"], 0), LONGEST_SAID)
            return Health(failing=bool(said["failing"]), min_response_ms=int(longest))
        except (HttpError, OSError, ValueError, KeyError, TypeError):
            return None


def judge(status: int, body: bytes, retry_after: str | None) -> Outcome:
    """The outcome of a send. Answers outside the contract are UNKNOWN."""
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
        return Outcome(Result.NOT_BOOKED, code=f"http_{status}", turned_away=True)
    if status == 500:
        return Outcome(Result.NOT_BOOKED, code="http_500", healthy=False, outage=True)
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
