"""Fetches events that were never delivered: a webhook that Stripe gave up on, an address that was wrong, a day without us.

They come in by the same door as deliveries and are told apart from these by their ids. Stripe lists events of 30 days,
newest first; how far the list was read is kept, so that a pass that is cut off goes on where it was.
"""

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import stripe
from stripe.params import EventListParams

from payments.inbound.receive import SQL, Arrival, NoEvent, read_head, receive
from payments.processors.base import Account
from payments.processors.stripe.answers import TROUBLE, failure
from payments.processors.stripe.client import Clients
from payments.routing.routing import RoutingTable
from registry.data import database
from registry.data.chores import chore
from registry.errors import Unavailable

log = logging.getLogger(__name__)

EVERY: Final = 300  # seconds between passes
KEPT: Final = timedelta(days=30)  # that Stripe lists events
OVERLAP: Final = timedelta(minutes=10)  # read once more: clocks differ, and events appear a little after their time
PAGE: Final = 100  # events per request, as many as Stripe allows
PASS_WITHIN: Final = 120.0  # seconds for one account's pass; the next one goes on where it was
ACCOUNTS_AT_ONCE: Final = 4


class _Page(msgspec.Struct):
    data: list[msgspec.Raw]
    has_more: bool


class Position(msgspec.Struct, frozen=True):
    """How far an account's list was read."""

    read_until: datetime
    pass_until: datetime | None = None  # of the pass that was cut off
    cursor: str = ""  # and the last event that it has read


@chore("poll-inbound", every=EVERY)
async def poll() -> int:
    """A pass over the events of every account, switched off or not; how many were new. One's trouble is no other's."""
    routes, gate = RoutingTable(), asyncio.Semaphore(ACCOUNTS_AT_ONCE)
    tenants = {tenant for (tenant,) in await database.fetch(SQL["polled"])}
    await routes.load(tenants)
    accounts = [account for tenant in tenants for account, _ in routes.of(tenant)]

    async def one(account: Account) -> int:
        async with gate:
            return await _poll(account, clients)

    async with Clients() as clients:
        mine = [account for account in accounts if account.kind == "stripe"]
        new = sum(await asyncio.gather(*map(one, mine)))
    if new:
        log.info("events of processors fetched that were not delivered", extra={"events": new})
    return new


async def _poll(account: Account, clients: Clients) -> int:
    if not (rows := await database.fetch(SQL["position"], _keys(account))):
        return 0  # it was removed at this very moment
    position = Position(*rows[0])
    if position.pass_until is None or position.pass_until < datetime.now(UTC) - KEPT:
        position = Position(position.read_until, datetime.now(UTC))
    new = 0
    end = time.monotonic() + PASS_WITHIN
    try:
        client = clients.of(account)
        while True:
            found, position = await _page(client, account, position)
            new += found
            await _keep(account, position)
            if position.pass_until is None or time.monotonic() > end:
                return new
    except (*TROUBLE, msgspec.MsgspecError) as trouble:
        if isinstance(trouble, Unavailable):
            raise
        error = failure(trouble).code
        log.warning("events could not be listed", extra={"processor": account.id, "error": error})
        if isinstance(trouble, stripe.InvalidRequestError):  # such as a cursor that is too old: begin anew
            position = Position(position.read_until)
        await _keep(account, position, error)
        return new


async def _page(client: stripe.StripeClient, account: Account, position: Position) -> tuple[int, Position]:
    """One page taken in; how many events were new, and the position after it."""
    assert position.pass_until is not None
    answer = await client.v1.events.list_async(_asked(account, position, position.pass_until))
    assert answer.last_response is not None
    page = msgspec.json.decode(answer.last_response.body, type=_Page)
    last = ""
    arrivals = []
    for raw in page.data:
        body = bytes(raw)
        try:
            head = read_head(body)
        except NoEvent as error:
            log.warning("an event cannot be read", extra={"processor": account.id, "error": error.detail})
            continue
        last = head.id
        arrivals.append(Arrival(account.tenant_id, account.id, head, body, "{}", "poll"))
    new = sum(await asyncio.gather(*map(receive, arrivals)))
    if page.has_more and last:
        return new, msgspec.structs.replace(position, cursor=last)
    return new, Position(position.pass_until)


def _asked(account: Account, position: Position, until: datetime) -> EventListParams:
    since = max(position.read_until - OVERLAP, datetime.now(UTC) - KEPT)
    asked: EventListParams = {
        "created": {"gte": int(since.timestamp()), "lte": int(until.timestamp())},
        "limit": PAGE,
    }
    if account.secrets.get("webhookSecrets"):  # without them nothing is ever delivered here
        asked["delivery_success"] = False
    if position.cursor:
        asked["starting_after"] = position.cursor
    return asked


async def _keep(account: Account, position: Position, error: str = "") -> None:
    fields = msgspec.structs.asdict(position)
    await database.fetch(SQL["keep_position"], {**_keys(account), **fields, "error": error[:300]})


def _keys(account: Account) -> dict[str, int]:
    return {"tenant": account.tenant_id, "processor": account.id}
