"""Fetch events that were never delivered: Stripe gave up, the webhook's address was wrong, or this service was unavailable.

They are stored like delivered ones; the unique event id prevents duplicates. Stripe lists the events of 30 days, newest first. The
position in that list is stored, so that an interrupted pass continues there.
"""

import asyncio
import logging
import time
from datetime import datetime, timedelta
from typing import Final

import msgspec
import stripe
from stripe.params import EventListParams

from payments.inbound.receive import SQL, NoEvent, ReceivedEvent, read_head, receive
from payments.processors.base import Account
from payments.processors.stripe.answers import TROUBLE, failure
from payments.processors.stripe.client import Clients
from payments.routing.routing import RoutingTable
from registry.data import clock, database
from registry.data.chores import chore
from registry.errors import Unavailable

log = logging.getLogger(__name__)

EVERY: Final = 300  # seconds between passes
KEPT: Final = timedelta(days=30)  # for which Stripe lists events
OVERLAP: Final = timedelta(
    minutes=10
)  # read again by the next pass: clocks differ, and events are listed a little after their time
PAGE: Final = 100  # events per request, as many as Stripe allows
PASS_WITHIN: Final = 120.0  # seconds for one account's pass; the next one continues it
ACCOUNTS_AT_ONCE: Final = 4


class _Page(msgspec.Struct):
    data: list[msgspec.Raw]
    has_more: bool


class PollPosition(msgspec.Struct, frozen=True):
    """The position in an account's list of events."""

    read_until: datetime
    pass_until: datetime | None = None  # of an interrupted pass
    cursor: str = ""  # the last event that it read


@chore("poll-inbound", every=EVERY)
async def poll() -> int:
    """Fetch the events of every account, also of disabled ones; returns how many were new. Accounts fail independently."""
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
        log.info("fetched events that were not delivered", extra={"events": new})
    return new


async def _poll(account: Account, clients: Clients) -> int:
    if not (rows := await database.fetch(SQL["position"], _keys(account))):
        return 0  # its processor was deleted at this very moment
    position = PollPosition(*rows[0])
    if position.pass_until is None or position.pass_until < clock.now() - KEPT:
        position = PollPosition(position.read_until, clock.now())
    new = 0
    end = time.monotonic() + PASS_WITHIN
    try:
        client = clients.of(account)
        while True:
            stored, position = await _page(client, account, position)
            new += stored
            await _store_position(account, position)
            if position.pass_until is None or time.monotonic() > end:
                return new
    except (*TROUBLE, msgspec.MsgspecError) as trouble:
        if isinstance(trouble, Unavailable):
            raise
        error = failure(trouble).code
        log.warning("events could not be listed", extra={"processor": account.id, "error": error})
        if isinstance(trouble, stripe.InvalidRequestError):  # such as a cursor that is too old: start a new pass
            position = PollPosition(position.read_until)
        await _store_position(account, position, error)
        return new


async def _page(client: stripe.StripeClient, account: Account, position: PollPosition) -> tuple[int, PollPosition]:
    """Store one page; returns how many events were new, and the position after it."""
    assert position.pass_until is not None
    answer = await client.v1.events.list_async(_parameters(account, position, position.pass_until))
    assert answer.last_response is not None
    page = msgspec.json.decode(answer.last_response.body, type=_Page)
    last = ""
    events = []
    for raw in page.data:
        body = bytes(raw)
        try:
            head = read_head(body)
        except NoEvent as error:
            log.warning("an event cannot be read", extra={"processor": account.id, "error": error.detail})
            continue
        last = head.id
        events.append(ReceivedEvent(account.tenant_id, account.id, head, body, "{}", "poll"))
    new = sum(await asyncio.gather(*map(receive, events)))
    if page.has_more and last:
        return new, msgspec.structs.replace(position, cursor=last)
    return new, PollPosition(position.pass_until)


def _parameters(account: Account, position: PollPosition, until: datetime) -> EventListParams:
    since = max(position.read_until - OVERLAP, clock.now() - KEPT)
    parameters: EventListParams = {
        "created": {"gte": int(since.timestamp()), "lte": int(until.timestamp())},
        "limit": PAGE,
    }
    if account.secrets.get("webhookSecrets"):  # without them no webhook is ever accepted
        parameters["delivery_success"] = False
    if position.cursor:
        parameters["starting_after"] = position.cursor
    return parameters


async def _store_position(account: Account, position: PollPosition, error: str = "") -> None:
    fields = msgspec.structs.asdict(position)
    await database.fetch(SQL["keep_position"], {**_keys(account), **fields, "error": error[:300]})


def _keys(account: Account) -> dict[str, int]:
    return {"tenant": account.tenant_id, "processor": account.id}
