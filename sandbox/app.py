"""The ASGI application of the sandbox: authentication, idempotency, faults, automatic steps."""

import asyncio
import base64
import hashlib
import json
import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from sandbox import (
    billing_pages,
    catalog,
    charges,
    checkout,
    connect,
    control,
    customers,
    dispute_page,
    disputes,
    endpoints,
    events,
    forms,
    invoices,
    pages,
    payment_intents,
    refunds,
    subscriptions,
)
from sandbox.errors import StripeError
from sandbox.faults import Fault, Faults, Trouble
from sandbox.journal import Journal
from sandbox.shop import Shop
from sandbox.state import API_VERSION, KeptAnswer, State, Thing, expand, new_id, public
from sandbox.webhooks import Webhooks
from sandbox.wire import Answer, HangUp, Message, Receive, Received, Request, encode, read, refusal

log = logging.getLogger(__name__)

OBJECTS = (
    catalog,
    charges,
    checkout,
    connect,
    customers,
    disputes,
    events,
    invoices,
    payment_intents,
    refunds,
    subscriptions,
)
STEPS: dict[str, Callable[[State, Thing], None]] = {
    "balance": charges.settle_late,
    "dispute": disputes.of_card,
    "refund_done": refunds.succeed,
    "refund_failed": refunds.fail,
}  # automatic steps of an object, some time after a request


class Sandbox:
    """One Stripe account, in test mode."""

    def __init__(self, *, secret_key: str, publishable_key: str = "", data: Path | None = None) -> None:
        self.secret_key = secret_key
        self.publishable_key = publishable_key or secret_key.replace("sk_", "pk_", 1)
        self.journal = Journal(data) if data else None
        self.state = State(self.journal)
        self.webhooks = Webhooks(self.state)
        self.faults = Faults()
        self.shop = Shop()
        self.step_after = 0.05  # seconds until an automatic step
        self.received: deque[Received] = deque(maxlen=10_000)
        self._in_flight: set[str] = set()
        self._steps: set[asyncio.Task[None]] = set()
        self._scheduled: set[str] = set()

    async def __aenter__(self) -> Self:
        await self.state.restore()
        await self.webhooks.__aenter__()
        self._schedule(list(self.state.things.values()))
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._steps:
            task.cancel()
        await asyncio.gather(*self._steps, return_exceptions=True)
        await self.webhooks.__aexit__(*error)
        await self.state.write_down()
        if self.journal:
            await self.journal.close()

    # -- One request --

    async def __call__(self, scope: Message, receive: Receive, send: Any) -> None:
        request_id = new_id("req", 14)
        try:
            answer = await self.answer(await read(request_id, scope, receive))
        except StripeError as error:
            answer = refusal(error)
        except HangUp:
            scope["sandbox.hang_up"]()
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        headers = {
            "content-type": "application/json",
            "content-length": str(len(answer.body)),
            "request-id": request_id,
            "stripe-version": API_VERSION,
            **answer.headers,
        }
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
        await send({"type": "http.response.body", "body": answer.body})

    async def answer(self, request: Request) -> Answer:
        """Answer a request and record it. Raises HangUp."""
        if request.path.startswith("/sandbox/"):
            return await self._own_page(request)
        seen = Received(
            id=request.id,
            method=request.method,
            path=request.path,
            params=request.values,
            idempotency_key=request.key,
        )
        self.received.append(seen)
        try:
            answer = await self._answer(request, self.faults.take(request.method, request.path))
        except StripeError as error:
            answer = refusal(error)
        except (HangUp, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("error in the sandbox at %s %s", request.method, request.path)
            answer = refusal(_broken())
        seen.status, seen.replayed = answer.status, "idempotent-replayed" in answer.headers
        return answer

    async def _answer(self, request: Request, fault: Fault | None) -> Answer:
        publishable = self.authenticate(request)
        await _trouble_before(fault)
        endpoint, names = endpoints.find(request.method, request.path)
        if publishable and not endpoint.publishable:
            raise StripeError(401, "This API call cannot be made with a publishable API key.", remembered=False)
        raw = forms.decode(request.encoded)
        call = endpoints.Call(self.state, endpoint.read(raw), publishable)
        if not request.key:
            return await self._execute(request, fault, lambda: endpoint.run(call, *names), call)
        if request.key in self._in_flight:
            raise _in_use(request.key)
        fingerprint = hashlib.sha256(json.dumps([request.path, raw], sort_keys=True).encode()).hexdigest()
        if kept := self.state.kept_answer(request.key):
            return _replay(kept, fingerprint)
        self._in_flight.add(request.key)
        try:
            return await self._execute(request, fault, lambda: endpoint.run(call, *names), call, fingerprint)
        finally:
            self._in_flight.discard(request.key)

    async def _execute(
        self,
        request: Request,
        fault: Fault | None,
        run: Callable[[], Thing],
        call: endpoints.Call,
        fingerprint: str = "",
    ) -> Answer:
        if fault and fault.trouble == Trouble.SLOW_BEFORE:
            await asyncio.sleep(fault.seconds)
        self.state.cause = {"id": request.id, "idempotency_key": request.key or None}
        try:
            if fault and fault.trouble == Trouble.ERROR_KEPT:
                raise _broken(remembered=True)
            body = public(run())
            expand(self.state, body, call.params.get("expand", []))
            answer, remembered = Answer(200, encode(body)), True
        except StripeError as error:
            answer, remembered = refusal(error), error.remembered
        if fault and fault.trouble == Trouble.ERROR_AFTER:
            answer = refusal(_broken())
        if fingerprint and remembered:
            kept = KeptAnswer(fingerprint, answer.status, answer.body, request.id, self.state.now())
            self.state.keep_answer(request.key, kept)
        await self.finish()
        if fault and fault.trouble == Trouble.SLOW_AFTER:
            await asyncio.sleep(fault.seconds)
        if fault and fault.trouble == Trouble.DROP_AFTER:
            raise HangUp
        return answer

    async def finish(self) -> None:
        """Write changes to the journal and deliver their events."""
        self._schedule(list(self.state.changed.values()))
        self.webhooks.send_waiting()
        await self.state.write_down()

    async def _own_page(self, request: Request) -> Answer:
        """Pages and control requests of the sandbox, which Stripe does not have."""
        try:
            found = await control.answer(self, request) or await pages.answer(self, request)
            found = found or await billing_pages.answer(self, request) or await dispute_page.answer(self, request)
            found = found or self.shop.answer(request)
        except StripeError as error:
            return refusal(error)
        return found or refusal(StripeError(404, f"Unknown path: {request.path}."))

    def put_forward(self, seconds: int) -> None:
        """Advance the clock and do what becomes due."""
        self.state.put_forward(seconds)
        subscriptions.advance(self.state)

    def authenticate(self, request: Request, *, secret: bool = False) -> bool:
        """Check the API key; True for the publishable key. Raises StripeError (401)."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            token = _user_of(token)
        elif not token:
            token = request.values.get("key", "")
        if token not in ((self.secret_key,) if secret else (self.secret_key, self.publishable_key)):
            said = f"Invalid API Key provided: {token[:3]}***" if token else "You did not provide an API key."
            raise StripeError(401, said, remembered=False)
        return token == self.publishable_key

    # -- Automatic steps --

    def _schedule(self, things: list[Any]) -> None:
        for thing in things:
            if isinstance(thing, dict) and thing.get("_steps") and thing["id"] not in self._scheduled:
                self._scheduled.add(thing["id"])
                task = asyncio.create_task(self._step(thing))
                self._steps.add(task)
                task.add_done_callback(self._steps.discard)

    async def _step(self, thing: Thing) -> None:
        while thing["_steps"]:
            await asyncio.sleep(self.step_after)
            self.state.cause = {"id": None, "idempotency_key": None}
            try:
                STEPS[thing["_steps"].pop(0)](self.state, thing)
            except StripeError as error:
                log.warning("%s: %s", thing["id"], error)
            self.state.save(thing)
            await self.finish()
        self._scheduled.discard(thing["id"])


def _user_of(token: str) -> str:
    """The user name of a Basic header: Stripe's clients send the API key as user name without a password."""
    try:
        return base64.b64decode(token, validate=True).decode("latin-1").partition(":")[0]
    except ValueError:
        return "???"


async def _trouble_before(fault: Fault | None) -> None:
    """Apply a fault that prevents execution. Raises HangUp or StripeError."""
    if fault is None:
        return
    if fault.trouble == Trouble.DROP_BEFORE:
        raise HangUp
    if fault.trouble == Trouble.ERROR_BEFORE:
        raise _broken()
    if fault.trouble == Trouble.REFUSE:
        raise StripeError(fault.status, "This request is refused.", remembered=False)
    if fault.trouble == Trouble.RATE_LIMIT:
        raise StripeError(
            429,
            "Request rate limit exceeded. Learn more about rate limits here https://docs.stripe.com/rate-limits.",
            code="rate_limit",
            remembered=False,
        )


def _broken(*, remembered: bool = False) -> StripeError:
    return StripeError(500, "An unknown error occurred.", type="api_error", remembered=remembered)


def _in_use(key: str) -> StripeError:
    return StripeError(
        409,
        f"There is currently another in-progress request using this Idempotent Key ({key}). Please try again later.",
        type="idempotency_error",
        code="idempotency_key_in_use",
        remembered=False,
    )


def _replay(kept: KeptAnswer, fingerprint: str) -> Answer:
    if kept.request != fingerprint:
        raise StripeError(
            400,
            "Keys for idempotent requests can only be used with the same parameters they were first used with. Try using "
            "a different key if you meant to execute a different request.",
            type="idempotency_error",
            remembered=False,
        )
    return Answer(kept.status, kept.body, {"idempotent-replayed": "true", "original-request": kept.request_id})
