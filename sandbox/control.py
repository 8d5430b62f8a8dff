"""Control API at `/sandbox/control/…`: faults, decisions of banks and the clock, for demos and tests in other processes.

Requests and responses are JSON and need the secret key. Tests in the same process call the same functions (tests/bed/stripe.py).
"""

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from sandbox import confirming, disputes, refunds, subscriptions
from sandbox.errors import StripeError, invalid
from sandbox.faults import Fault
from sandbox.state import public
from sandbox.webhooks import Listener
from sandbox.wire import Answer, Request, encode

if TYPE_CHECKING:
    from sandbox.app import Sandbox

type Control = Callable[..., Awaitable[Any]]

CONTROLS: list[tuple[str, re.Pattern[str], Control]] = []


class Dispute(msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    charge: str
    reason: str = "fraudulent"
    amount: int | None = None
    inquiry: bool = False


class Verdict(msgspec.Struct, forbid_unknown_fields=True):
    won: bool


class Passed(msgspec.Struct, forbid_unknown_fields=True):
    passed: bool = True


class RefundEnd(msgspec.Struct, forbid_unknown_fields=True):
    succeeded: bool


class Renewal(msgspec.Struct, forbid_unknown_fields=True):
    paid: bool | None = None


class Forward(msgspec.Struct, forbid_unknown_fields=True):
    seconds: int


class Delivering(msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Settings of webhook delivery; missing fields do not change."""

    held: bool | None = None
    copies: int | None = None
    shuffle_within: float | None = None


class Again(msgspec.Struct, forbid_unknown_fields=True):
    """Events to send again; none: all undelivered ones."""

    events: list[str] = []
    shuffled: bool = False


async def answer(sandbox: "Sandbox", request: Request) -> Answer | None:
    """Run a control request, or return None for another path. Raises StripeError."""
    for method, path, run in CONTROLS:
        if method == request.method and (match := path.fullmatch(request.path)):
            sandbox.authenticate(request, secret=True)
            result = await run(sandbox, request.body.encode() or b"{}", *match.groups())
            await sandbox.finish()
            return Answer(200, encode(msgspec.to_builtins(public(result))))
    return None


def control[F: Control](method: str, path: str) -> Callable[[F], F]:
    pattern = re.compile(re.escape(f"/sandbox/control/{path}").replace(r"\{\}", r"(\w+)"))

    def register(function: F) -> F:
        CONTROLS.append((method, pattern, function))
        return function

    return register


def _read[T](body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise StripeError(400, str(error), remembered=False) from None


@control("GET", "received")
async def received(sandbox: "Sandbox", _: bytes) -> Any:
    """The latest 10,000 requests with their idempotency keys."""
    return msgspec.to_builtins(list(sandbox.received))


@control("GET", "faults")
async def list_faults(sandbox: "Sandbox", _: bytes) -> Any:
    return msgspec.to_builtins(sandbox.faults.active)


@control("POST", "faults")
async def add_fault(sandbox: "Sandbox", body: bytes) -> Any:
    return msgspec.to_builtins(sandbox.faults.add(_read(body, Fault)))


@control("DELETE", "faults")
async def clear_faults(sandbox: "Sandbox", _: bytes) -> Any:
    sandbox.faults.clear()
    return {}


@control("GET", "deliveries")
async def deliveries(sandbox: "Sandbox", _: bytes) -> Any:
    return msgspec.to_builtins(list(sandbox.webhooks.log))


@control("POST", "deliveries")
async def deliver(sandbox: "Sandbox", body: bytes) -> Any:
    wanted = _read(body, Delivering)
    for name in wanted.__struct_fields__:
        if (value := getattr(wanted, name)) is not None:
            setattr(sandbox.webhooks, name, value)
    return {name: getattr(sandbox.webhooks, name) for name in wanted.__struct_fields__}


@control("POST", "resend")
async def resend(sandbox: "Sandbox", body: bytes) -> Any:
    wanted = _read(body, Again)
    if not wanted.events:
        sandbox.webhooks.send_undelivered(shuffled=wanted.shuffled)
    for event in [sandbox.state.find("event", name) for name in wanted.events]:
        sandbox.webhooks.send(event, again=True)
    return {}


@control("POST", "listeners")
async def listen(sandbox: "Sandbox", body: bytes) -> Any:
    """Add a webhook endpoint until the sandbox ends."""
    listener = _read(body, Listener)
    if not listener.url.startswith(("http://", "https://")):
        raise invalid("The url of a listener begins with http.", param="url")
    sandbox.webhooks.listeners.append(listener)
    return {"url": listener.url, "types": listener.types}


@control("POST", "payment_intents/{}/authenticate")
async def authenticate(sandbox: "Sandbox", body: bytes, name: str) -> Any:
    intent = sandbox.state.find("payment_intent", name)
    return confirming.authenticate(sandbox.state, intent, passed=_read(body, Passed).passed)


@control("POST", "disputes")
async def dispute(sandbox: "Sandbox", body: bytes) -> Any:
    wanted = msgspec.structs.asdict(_read(body, Dispute))
    made = sandbox.state.find("charge", wanted.pop("charge"))
    return disputes.open_dispute(sandbox.state, made, **wanted)


@control("POST", "disputes/{}/close")
async def close(sandbox: "Sandbox", body: bytes, name: str) -> Any:
    found = sandbox.state.find("dispute", name)
    return disputes.close_dispute(sandbox.state, found, won=_read(body, Verdict).won)


@control("POST", "refunds/{}/end")
async def end_refund(sandbox: "Sandbox", body: bytes, name: str) -> Any:
    refund = sandbox.state.find("refund", name)
    (refunds.succeed if _read(body, RefundEnd).succeeded else refunds.fail)(sandbox.state, refund)
    return refund


@control("POST", "subscriptions/{}/renew")
async def renew(sandbox: "Sandbox", body: bytes, name: str) -> Any:
    """End the period now; `paid` overrides the card's result for the next invoice."""
    found = sandbox.state.find("subscription", name)
    return subscriptions.renew_now(sandbox.state, found, paid=_read(body, Renewal).paid)


@control("POST", "clock")
async def put_forward(sandbox: "Sandbox", body: bytes) -> Any:
    sandbox.put_forward(_read(body, Forward).seconds)
    return {"now": sandbox.state.now()}
