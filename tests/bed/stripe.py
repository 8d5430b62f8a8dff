"""A Stripe of our own in the test's process: over real HTTP, with trouble on command and handles to look inside."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from registry.edge.protocol import BoundedProtocol
from sandbox import disputes, refunds, subscriptions
from sandbox.app import Sandbox
from sandbox.confirming import authenticate
from sandbox.faults import Fault, Trouble
from sandbox.server import listen, serving
from sandbox.state import Thing
from sandbox.webhooks import Delivery, Listener
from sandbox.wire import Received

SECRET_KEY = "sk_test_bed"
WEBHOOK_SECRET = "whsec_bed"


class SandboxStripe:
    """What a test needs of it. Everything here happens at once; what listens hears of it over HTTP."""

    secret_key = SECRET_KEY
    webhook_secret = WEBHOOK_SECRET

    def __init__(self, sandbox: Sandbox, url: str) -> None:
        self.sandbox, self.url = sandbox, url
        self.webhooks, self.state = sandbox.webhooks, sandbox.state

    # -- Trouble --

    def fails(self, trouble: str, *, on: str = "*", times: int | None = None, **more: Any) -> Fault:
        """See sandbox.faults; `on` is a pattern as "POST /v1/refunds*"."""
        return self.sandbox.faults.add(Fault(trouble=Trouble(trouble), on=on, times=times, **more))

    def recovers(self) -> None:
        self.sandbox.faults.clear()

    # -- What was asked of it, and what it has --

    def received(self, on: str = "") -> list[Received]:
        """Requests whose "METHOD /path" begins with `on`, in order."""
        return [seen for seen in self.sandbox.received if f"{seen.method} {seen.path}".startswith(on)]

    def all(self, kind: str, **fields: Any) -> list[Thing]:
        """Objects of a kind ("payment_intent", "refund", "event"…) with these values, the oldest first."""
        return self.state.of(kind, **fields)

    def __getitem__(self, name: str) -> Thing:
        """The object of this id."""
        return self.state.things[name]

    # -- What its people and banks do --

    async def authenticates(self, intent: str, *, passed: bool = True) -> Thing:
        """The payer answers the 3-D Secure page."""
        return await self._done(authenticate(self.state, self[intent], passed=passed))

    async def disputes(self, charge: str, **how: Any) -> Thing:
        """`reason`, `amount`, `inquiry`."""
        return await self._done(disputes.open_dispute(self.state, self[charge], **how))

    async def decides(self, dispute: str, *, won: bool) -> Thing:
        return await self._done(disputes.close_dispute(self.state, self[dispute], won=won))

    async def completes_refund(self, refund: str) -> None:
        await self._done(refunds.succeed(self.state, self[refund]))

    async def fails_refund(self, refund: str) -> None:
        await self._done(refunds.fail(self.state, self[refund]))

    async def tells(self, type_: str, thing: Thing) -> Thing:
        """An event of any type, of types nobody knows as well."""
        return await self._done(self.state.emit(type_, thing))

    async def renews(self, subscription: str, *, paid: bool | None = None) -> Thing:
        """Its period ends now, and the next invoice is paid, or not, or as the card has it."""
        return await self._done(subscriptions.renew_now(self.state, self[subscription], paid=paid))

    async def puts_clock_forward(self, seconds: int) -> None:
        await self._done(self.sandbox.put_forward(seconds))

    async def _done[T](self, result: T) -> T:
        await self.sandbox.finish()
        return result

    # -- Webhooks --

    def calls(self, url: str, *, secret: str = WEBHOOK_SECRET, types: tuple[str, ...] = ()) -> None:
        """Deliver events to `url` from now on."""
        self.webhooks.listeners.append(Listener(url=url, secret=secret, types=list(types)))

    @property
    def deliveries(self) -> list[Delivery]:
        return list(self.webhooks.log)


@asynccontextmanager
async def sandbox_stripe(*, data: Path | None = None) -> AsyncIterator[SandboxStripe]:
    """On a free port, in this loop; `data` is a file that the account survives in."""
    sandbox = Sandbox(secret_key=SECRET_KEY, data=data)
    sandbox.webhooks.waits = (0.05, 0.1, 0.2, 0.5, 1.0)
    async with serving(sandbox, listen(), protocol=BoundedProtocol) as url:
        yield SandboxStripe(sandbox, url)
