"""What the console's pages can do, each as an order that is confirmed first. Carrying it out is guarded.py's."""

from datetime import UTC, datetime

from django.http import Http404, HttpResponse

from queueing.broker import dead_letters, groups, maintenance
from queueing.broker.statistics import Depth
from queueing.console import figures, queries
from queueing.console.confirm import Order, allowed, asked, guarded
from queueing.templatetags.queues import address
from queueing.templatetags.queues import group as named
from registry.edge.pages import PageRequest
from registry.edge.viewer import Visitor
from registry.errors import Problem

SELECTED = 100  # dead letters of one replay
SHOWN = 10  # rows named on the page


# -- The tenant --------------------------------------------------------------------------------------------

MAINTENANCE = {
    ("push", "on"): ("Stop pushes", "What is pushed from now on is kept in the spill, durable, and stored when you let pushes go on."),
    ("push", "off"): ("Let pushes go on", "What has waited in the spill is stored in its order, then pushes are stored at once again."),
    ("pop", "on"): ("Stop pops", "Readers get nothing from now on. What they have in hand they may still finish."),
    ("pop", "off"): ("Let pops go on", "Readers get messages again."),
}  # fmt: skip


async def of_tenant(request: PageRequest, visitor: Visitor) -> HttpResponse:
    allowed(visitor)
    data = asked(request)
    what, to = data.get("what", ""), data.get("to", "")
    if data["do"] != "maintenance" or (what, to) not in MAINTENANCE:
        raise Http404
    label, warning = MAINTENANCE[what, to]
    tenant_id = visitor.tenant.pk
    reading = await figures.readings.get(tenant_id)

    async def perform() -> int:
        await maintenance.set(tenant_id, **{what: to == "on"})
        figures.readings.forget(tenant_id)
        return len(reading.standings)

    return await guarded(
        request,
        visitor,
        Order(
            name=f"queues.{'stop' if to == 'on' else 'resume'}_{what}",
            label=label,
            target=f"all queues of {visitor.tenant.slug}",
            count=len(reading.standings),
            noun="queue",
            warning=warning,
            perform=perform,
            back=address("queues", tenant=visitor.tenant.slug),
            fields=[("do", "maintenance"), ("what", what), ("to", to)],
        ),
    )


# -- A queue -----------------------------------------------------------------------------------------------


async def of_queue(request: PageRequest, visitor: Visitor, depth: Depth) -> HttpResponse:
    allowed(visitor)
    data = asked(request)
    name = data.get("group", "")
    if data["do"] != "seek":
        raise Http404
    found = [
        one for one in await groups.standings(visitor.tenant.pk) if (one.queue_name, one.name) == (depth.name, name)
    ]
    if not found:
        raise Http404
    return await guarded(request, visitor, _seek(request, visitor, depth, found[0]))


def _seek(request: PageRequest, visitor: Visitor, depth: Depth, standing: groups.Standing) -> Order:
    data = asked(request)
    to, at = data.get("to") or "end", data.get("at", "")
    since, wrong = None, {}
    if to == "time":
        try:
            since = _moment(at)
        except ValueError:
            wrong["at"] = "Choose a date and time."

    async def perform() -> int:
        moved = await groups.seek(visitor.tenant.pk, standing.name, depth.name, since=since)
        figures.forget(visitor.tenant.pk, depth.name)
        return moved

    return Order(
        name="group.seek",
        label=f"Move {named(standing.name)}",
        target=f"group {standing.name} of queue {depth.name}",
        count=depth.partitions,
        noun="partition",
        warning=(
            f"{standing.total_lag:,} messages wait for this group now. At the end of the queue it skips them; at an earlier "
            "time it reads again what it has read before. Its leases end, and who holds one cannot ack by it any more."
        ),
        perform=perform,
        back=address("queue", depth.name, tenant=visitor.tenant.slug),
        fields=[("do", "seek"), ("group", standing.name)],
        extra="queueing/_seek.html",
        entered={"to": to, "at": at},
        wrong=wrong,
        detail={"to": since.isoformat() if since else "end", "waiting": standing.total_lag},
    )


def _moment(text: str) -> datetime:
    """As a browser's field has it, UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:  # an end of the calendar, in another zone
        raise ValueError(text) from None


# -- Dead letters ------------------------------------------------------------------------------------------


async def of_dead_letters(request: PageRequest, visitor: Visitor, queue: str) -> HttpResponse:
    allowed(visitor)
    match asked(request)["do"]:
        case "replay":
            return await guarded(request, visitor, await _replay(request, visitor, queue))
        case "purge":
            return await guarded(request, visitor, await _purge(request, visitor, queue))
    raise Http404


async def _replay(request: PageRequest, visitor: Visitor, queue: str) -> Order:
    given = asked(request).getlist("id")[:SELECTED]
    ids = [int(one) for one in given if one.isascii() and one.isdigit() and len(one) < 19]
    return replay_order(visitor, queue, await queries.still_open(visitor.tenant.pk, queue, ids))


def replay_order(visitor: Visitor, queue: str, found: list[tuple[int, str]], *, back: str = "") -> Order:
    """Push these dead letters, (number, error), again."""
    tenant_id = visitor.tenant.pk

    async def perform() -> int:
        done = [await _replayed(tenant_id, number) for number, _ in found]
        figures.forget(tenant_id, queue)
        return sum(done)

    return Order(
        name="deadmessage.replay",
        label="Replay",
        target=f"queue {queue}",
        count=len(found),
        noun="dead letter",
        warning="Each is pushed once more, to the end of its partition, and leaves the dead letters. All groups get it.",
        perform=perform,
        back=back or address("queue_dead_letters", queue, tenant=visitor.tenant.slug),
        fields=[("do", "replay"), *(("id", str(number)) for number, _ in found)],
        shown=[f"{number}: {error[:120]}" for number, error in found[:SHOWN]],
        detail={"ids": [number for number, _ in found]},
    )


async def _replayed(tenant_id: int, number: int) -> bool:
    """Whether it was pushed again; one that somebody else took first was not, and must not hold up the others."""
    try:
        return (await dead_letters.replay(tenant_id, str(number))).verdict == dead_letters.MOVED
    except Problem:
        return False


async def _purge(request: PageRequest, visitor: Visitor, queue: str) -> Order:
    data = asked(request)
    group, tenant_id = data.get("group", "").replace("\0", ""), visitor.tenant.pk
    filters = {"queue": queue, "group": group, "partition": "", "from": None, "to": None}
    _, count = await dead_letters.letters(tenant_id, filters, limit=0, offset=0)

    async def perform() -> int:
        purged = await dead_letters.purge(tenant_id, queue, group)
        figures.forget(tenant_id, queue)
        return purged

    return Order(
        name="deadmessage.purge",
        label="Purge dead letters",
        target=f"queue {queue}" + (f", group {group}" if group else ""),
        count=count,
        noun="dead letter",
        warning="They are deleted, their payloads too. Nothing brings them back.",
        perform=perform,
        back=address("queue_dead_letters", queue, tenant=visitor.tenant.slug),
        fields=[("do", "purge"), ("group", group)],
        severe=True,
    )


# -- A message ---------------------------------------------------------------------------------------------


async def of_message(
    request: PageRequest, visitor: Visitor, of: queries.Partition, message: queries.Whole
) -> HttpResponse:
    allowed(visitor)
    back = address("queue_message", of.id, message.seq, tenant=visitor.tenant.slug)
    match asked(request)["do"]:
        case "replay":
            found = [(grave.id, grave.error) for grave in message.graves if grave.ended_at is None]
            return await guarded(request, visitor, replay_order(visitor, of.queue, found, back=back))
        case "bury":
            return await guarded(request, visitor, _bury(visitor, of, message, back))
    raise Http404


def _bury(visitor: Visitor, of: queries.Partition, message: queries.Whole, back: str) -> Order:
    buried = {grave.group for grave in message.graves}
    behind = [seat.group for seat in of.seats if seat.cursor < message.seq and seat.group not in buried]

    async def perform() -> int:
        return await dead_letters.make(visitor.tenant.pk, of.id, message.transaction_id)

    return Order(
        name="message.bury",
        label="Move to the dead letters",
        target=f"message {message.transaction_id} of queue {of.queue}",
        count=len(behind),
        noun="consumer group",
        warning="These groups do not get it any more. It stays among the dead letters until it is replayed or purged.",
        perform=perform,
        back=back,
        fields=[("do", "bury")],
        shown=[named(group) for group in behind[:SHOWN]],
        detail={"partition": of.name, "seq": message.seq},
    )
