"""A processor of kind `http`: it books, responds, and fails in every way that a test requests."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum, auto
from typing import Any, Self

import msgspec

from tests.bed.books import Booking, Books, Received, read_order
from tests.bed.wire import Answer, Request, Reset, Server, Silence, response

TOKEN = "123"
HEALTH_EVERY = 5.0  # seconds between two health calls, for all callers together
HEALTH_WAITERS = 2  # callers that are made to wait for their turn; the next one gets 429
AT_ONCE = 800  # bookings that are worked on at the same time
IN_LINE = 500  # bookings that wait for that; the next one gets 429
GARBAGE = b"\x16\x03\x01 this is not HTTP \xff\xfe\r\n\r\n"

BOOKED = response(200, b'{"message":"payment processed successfully"}')
ALREADY_BOOKED = response(422, b'{"message":"CorrelationId already exists"}')


class Kind(Enum):
    ANSWER = auto()  # instead of booking
    SILENCE = auto()
    GARBAGE = auto()
    RESET = auto()


@dataclass
class Trouble:
    """What happens to the next `left` payments (to all of them if None)."""

    kind: Kind
    left: int | None
    books: bool = False  # whether the payment is booked before the trouble begins
    answer: bytes = b""

    def spend(self) -> bool:
        """Whether it strikes once more."""
        if self.left is None:
            return True
        self.left -= 1
        return self.left >= 0


class HttpProcessor:
    """`async with HttpProcessor() as default:` then `default.url`. Runs on the caller's event loop.

    Each kind of trouble takes `times`, the number of payments that it strikes, and replaces the one before; a delay
    stands beside it. `recovers()` ends both.
    """

    def __init__(
        self, *, port: int = 0, fee: float = 0.05, health_every: float | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.fee = Decimal(str(fee))
        self.health_every = HEALTH_EVERY if health_every is None else health_every
        self.books = Books()
        self.server = Server(self.answer, port, host)
        self.health_calls: list[float] = []  # loop time of each call, those refused included
        self.health_refused = 0
        self.lookups: list[str] = []
        self.traceparents: list[str] = []  # of each call of POST /payments; empty: it had none
        self.in_progress = 0
        self._next_health = 0.0
        self._health_waiters = 0
        self._gate = asyncio.Semaphore(AT_ONCE)
        self.recovers()

    async def __aenter__(self) -> Self:
        await self.server.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.server.__aexit__(*error)

    @property
    def url(self) -> str:
        return f"http://{self.server.host}:{self.server.port}"

    # -- What it saw -------------------------------------------------------------------------------

    @property
    def received(self) -> list[str]:
        """Correlation ids of all calls of POST /payments, in order; `requests` has the rest of each."""
        return [request.correlation_id for request in self.books.requests]

    @property
    def requests(self) -> list[Received]:
        return self.books.requests

    @property
    def booked(self) -> dict[str, Booking]:
        """Correlation id → (amount in minor units, requestedAt)."""
        return self.books.booked

    @property
    def duplicates(self) -> int:
        return self.books.duplicates

    # -- Trouble -----------------------------------------------------------------------------------

    def recovers(self) -> None:
        """All is well from now on. Who was left without an answer stays without one."""
        self._trouble: Trouble | None = None
        self._delay = 0.0
        self._delays_left: int | None = None
        self._flap_every = 0.0
        self._flap_start = 0.0
        self._health_says: dict[str, Any] = {}
        self._lookup_answers: Trouble | None = None

    def delays(self, ms: float, *, times: int | None = None) -> None:
        """Sleeps before it answers; who hangs up meanwhile is booked all the same."""
        self._delay, self._delays_left = ms / 1000, times

    def fails(self, *, times: int | None = None) -> None:
        """Answers 500, books nothing, and says so when asked for its health."""
        self._trouble = Trouble(Kind.ANSWER, times, answer=response(500))

    def answers(self, status: int, *, times: int | None = None, body: bytes = b"{}", books: bool = False) -> None:
        """Answers `status`, whatever was asked."""
        self._trouble = Trouble(Kind.ANSWER, times, books, response(status, body))

    def overloads(self, retry_after: float = 1, *, times: int | None = None) -> None:
        """Answers 429 with Retry-After, books nothing."""
        self._trouble = Trouble(Kind.ANSWER, times, answer=response(429, retry_after=f"{retry_after:g}"))

    def books_but_never_answers(self, *, times: int | None = None) -> None:
        self._trouble = Trouble(Kind.SILENCE, times, books=True)

    def never_answers(self, *, times: int | None = None) -> None:
        """Neither books nor answers: to the caller the same as above."""
        self._trouble = Trouble(Kind.SILENCE, times)

    def answers_garbage(self, *, times: int | None = None, books: bool = True) -> None:
        """Answers what is not HTTP."""
        self._trouble = Trouble(Kind.GARBAGE, times, books)

    def resets_connections(self, *, times: int | None = None, books: bool = True) -> None:
        """Cuts the connection in place of an answer."""
        self._trouble = Trouble(Kind.RESET, times, books)

    def flaps(self, every: float) -> None:
        """Fails for `every` seconds, works for `every` seconds, and so on."""
        self._flap_every, self._flap_start = every, now()

    def says_of_its_health(self, *, failing: bool = False, min_response_ms: int = 0) -> None:
        """Health calls answer this, true or not."""
        self._health_says = {"failing": failing, "minResponseTime": min_response_ms}

    def lookups_answer(self, status: int, *, times: int | None = None) -> None:
        """GET /payments/{id} answers this, true or not."""
        self._lookup_answers = Trouble(Kind.ANSWER, times, answer=response(status))

    def cuts_connections(self) -> None:
        """Every open connection, once."""
        self.server.cut_connections()

    def resets(self) -> None:
        """Forgets its trouble and its books."""
        self.recovers()
        self.books.clear()
        self.health_calls.clear()
        self.lookups.clear()
        self.traceparents.clear()
        self.health_refused = 0

    # -- HTTP --------------------------------------------------------------------------------------

    def answer(self, request: Request) -> Answer | Awaitable[Answer]:
        if request.target == "/payments" and request.method == "POST":
            self.traceparents.append(request.header("traceparent"))
            return self.take(request.body)
        if request.path == "/payments/service-health":
            return self.health()
        if request.path.startswith("/payments/") and request.method == "GET":
            return self.look_up(request.path.removeprefix("/payments/"))
        if request.path.startswith("/admin/"):
            return self.administrate(request)
        return response(404)

    def take(self, body: bytes) -> Answer | Awaitable[Answer]:
        try:
            order = read_order(body)
        except ValueError as error:
            return response(400, msgspec.json.encode({"message": str(error)}))
        self.books.requests.append(order)
        delay = self.next_delay()
        if self.in_progress >= AT_ONCE + IN_LINE:
            return response(429, retry_after="5")
        if delay or self.in_progress >= AT_ONCE:
            self.in_progress += 1  # here and not in the coroutine, which starts a turn of the loop later
            return self.take_later(order, delay)
        return self.settle(order)

    async def take_later(self, order: Received, delay: float) -> Answer:
        async with self._gate:
            await asyncio.sleep(delay)
        self.in_progress -= 1
        return self.settle(order)

    def settle(self, order: Received) -> Answer:
        if self.flapping():
            return response(500)
        if self._trouble and self._trouble.spend():
            return self.strike(self._trouble, order)
        return BOOKED if self.books.book(order) else ALREADY_BOOKED

    def strike(self, trouble: Trouble, order: Received) -> Answer:
        if trouble.books:
            self.books.book(order)
        match trouble.kind:
            case Kind.SILENCE:
                return Silence()
            case Kind.RESET:
                return Reset()
            case Kind.GARBAGE:
                return GARBAGE
            case Kind.ANSWER:
                return trouble.answer

    def next_delay(self) -> float:
        if self._delay and self._delays_left is not None:
            self._delays_left -= 1
            return self._delay if self._delays_left >= 0 else 0.0
        return self._delay

    def flapping(self) -> bool:
        return self._flap_every > 0 and int((now() - self._flap_start) / self._flap_every) % 2 == 0

    @property
    def failing(self) -> bool:
        trouble = self._trouble
        lasting = trouble is not None and trouble.left is None and trouble.answer.startswith(b"HTTP/1.1 5")
        return lasting or self.flapping()

    def look_up(self, correlation_id: str) -> Answer:
        self.lookups.append(correlation_id)
        if self._lookup_answers and self._lookup_answers.spend():
            return self._lookup_answers.answer
        booking = self.booked.get(correlation_id)
        if booking is None:
            return response(404)
        said = {
            "correlationId": correlation_id,
            "amount": booking.amount / 100,
            "requestedAt": stamp(booking.requested_at),
        }
        return response(200, msgspec.json.encode(said))

    def health(self) -> Answer | Awaitable[Answer]:
        """One call in 5 s for all callers together: two wait for their turn, the others get 429."""
        called = now()
        self.health_calls.append(called)
        if called >= self._next_health:
            self._next_health = called + self.health_every
            return self.state_of_health()
        if self._health_waiters >= HEALTH_WAITERS:
            self.health_refused += 1
            return response(429, retry_after=f"{self.health_every:g}")
        turn = self._next_health
        self._next_health += self.health_every
        self._health_waiters += 1
        return self.health_later(turn - called)

    async def health_later(self, delay: float) -> Answer:
        await asyncio.sleep(delay)
        self._health_waiters -= 1
        return self.state_of_health()

    def state_of_health(self) -> bytes:
        says = self._health_says or {"failing": self.failing, "minResponseTime": round(self._delay * 1000)}
        return response(200, msgspec.json.encode(says))

    # -- Administration: how another process drives it ---------------------------------------------

    def administrate(self, request: Request) -> bytes:
        if request.header("x-rinha-token") != TOKEN:
            return response(401)
        try:
            said = self.command(request, request.path.removeprefix("/admin/"))
        except (ValueError, TypeError, KeyError) as error:
            return response(400, msgspec.json.encode({"message": str(error)}))
        return response(404) if said is None else response(200, msgspec.json.encode(said))

    def command(self, request: Request, name: str) -> object:
        match request.method, name:
            case "GET", "payments-summary":
                return self.summary(**request.query)
            case "GET", "ids":
                return list(self.booked)
            case "GET", "books":
                return self.report()
            case "POST", "purge-payments":
                self.books.clear()
                return {"message": "All payments purged."}
            case "PUT", "configurations/delay":
                self.delays(msgspec.json.decode(request.body)["delay"])
                return {}
            case "PUT", "configurations/failure":
                self.fails()
                if not msgspec.json.decode(request.body)["failure"]:
                    self._trouble = None
                return {}
            case "POST", "trouble":
                return self.get_into(**msgspec.json.decode(request.body))
        return None

    def get_into(self, name: str, arguments: list[Any], options: dict[str, Any]) -> dict[str, str]:
        """Any of the methods above, by name."""
        if name not in TROUBLES:
            raise ValueError(f"no trouble named {name!r}")
        getattr(self, name)(*arguments, **options)
        return {}

    def summary(self, **window: str) -> dict[str, Any]:
        start, end = (datetime.fromisoformat(window[name]) if name in window else None for name in ("from", "to"))
        payments, amount = self.books.summary(start, end)
        return {
            "totalRequests": payments,
            "totalAmount": amount / 100,
            "totalFee": float(amount * self.fee / 100),
            "feePerTransaction": float(self.fee),
            "duplicates": self.duplicates,
        }

    def report(self) -> dict[str, Any]:
        """Everything it saw, for tests in other processes."""
        return {
            "received": self.received,
            "booked": {name: (booking.amount, stamp(booking.requested_at)) for name, booking in self.booked.items()},
            "duplicates": self.duplicates,
            "lookups": self.lookups,
            "healthCalls": self.health_calls,
            "healthRefused": self.health_refused,
        }


TROUBLES = frozenset(
    [
        "recovers",
        "delays",
        "fails",
        "answers",
        "overloads",
        "books_but_never_answers",
        "never_answers",
        "answers_garbage",
        "resets_connections",
        "flaps",
        "says_of_its_health",
        "lookups_answer",
        "cuts_connections",
        "resets",
    ]
)


def now() -> float:
    return asyncio.get_running_loop().time()


def stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
