"""Guarded actions of the queue console: maintenance, seek, replay, purge and move to the dead letters."""

from datetime import UTC, datetime

from django.http import Http404, HttpResponse

from queueing.broker import dead_letters, groups, maintenance
from queueing.broker.operate import REPLAY_WARNING, replay
from queueing.broker.statistics import QueueDepth
from queueing.console import figures, queries
from queueing.templatetags.queues import address
from queueing.templatetags.queues import group as named
from registry.edge.pages import PageRequest
from registry.edge.viewer import Visitor
from registry.operators.confirm import Action, Confirmed, asked, confirm, recorded
from registry.operators.decide import Done
from registry.operators.scope import require_act

SELECTED = 100  # dead letters of one replay
SHOWN = 10  # rows named on the page


# -- The tenant --------------------------------------------------------------------------------------------

MAINTENANCE = {
    ("push", "on"): ("Stop pushes", "New messages are kept in the spill, durable, and stored in the queues when you resume pushes."),
    ("push", "off"): ("Resume pushes", "The messages in the spill are stored in order; after that, pushes are stored at once again."),
    ("pop", "on"): ("Stop pops", "Readers receive no more messages. They can still finish the ones they have leased."),
    ("pop", "off"): ("Resume pops", "Readers receive messages again."),
}  # fmt: skip


async def of_tenant(request: PageRequest, visitor: Visitor) -> HttpResponse:
    require_act(visitor)
    data = asked(request)
    what, to = data.get("what", ""), data.get("to", "")
    if data["do"] != "maintenance" or (what, to) not in MAINTENANCE:
        raise Http404
    label, warning = MAINTENANCE[what, to]
    tenant_id = visitor.tenant.pk
    snapshot = await figures.snapshots.get(tenant_id)

    async def change() -> Done:
        await maintenance.set(tenant_id, **{what: to == "on"})
        figures.snapshots.forget(tenant_id)
        return Done(rows=len(snapshot.queues))

    return await confirm(
        request,
        visitor,
        Action(
            name=f"queues.{'stop' if to == 'on' else 'resume'}_{what}",
            label=label,
            target=f"all queues of {visitor.tenant.slug}",
            count=len(snapshot.queues),
            noun="queue",
            warning=warning,
            perform=recorded(change, tenant_id=tenant_id),
            back=address("queues", tenant=visitor.tenant.slug),
            fields=[("do", "maintenance"), ("what", what), ("to", to)],
        ),
    )


# -- A queue -----------------------------------------------------------------------------------------------


async def of_queue(request: PageRequest, visitor: Visitor, depth: QueueDepth) -> HttpResponse:
    require_act(visitor)
    data = asked(request)
    name = data.get("group", "")
    if data["do"] != "seek":
        raise Http404
    found = [
        one for one in await groups.standings(visitor.tenant.pk) if (one.queue_name, one.name) == (depth.name, name)
    ]
    if not found:
        raise Http404
    return await confirm(request, visitor, _seek(request, visitor, depth, found[0]))


def _seek(request: PageRequest, visitor: Visitor, depth: QueueDepth, standing: groups.GroupStatus) -> Action:
    data = asked(request)
    to, at = data.get("to") or "end", data.get("at", "")
    since, wrong = None, {}
    if to == "time":
        try:
            since = _moment(at)
        except ValueError:
            wrong["at"] = "Choose a date and time."

    async def change() -> Done:
        moved = await groups.seek(visitor.tenant.pk, standing.name, depth.name, since=since)
        figures.forget(visitor.tenant.pk, depth.name)
        return Done(rows=moved)

    detail = {"to": since.isoformat() if since else "end", "waiting": standing.total_lag}

    return Action(
        name="group.seek",
        label=f"Reset offset of {named(standing.name)}",
        target=f"group {standing.name} of queue {depth.name}",
        count=depth.partitions,
        noun="partition",
        warning=(
            f"{standing.total_lag:,} messages are waiting for this group. Moved to the end of the queue, the group skips "
            "them; moved to an earlier time, it reads messages again. Its leases end: their holders can no longer ack."
        ),
        perform=recorded(change, tenant_id=visitor.tenant.pk, detail=detail),
        back=address("queue", depth.name, tenant=visitor.tenant.slug),
        fields=[("do", "seek"), ("group", standing.name)],
        extra="queueing/_seek.html",
        entered={"to": to, "at": at},
        wrong=wrong,
    )


def _moment(text: str) -> datetime:
    """The time of a `datetime-local` field, taken as UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:  # an end of the calendar, in another zone
        raise ValueError(text) from None


# -- Dead letters ------------------------------------------------------------------------------------------


async def of_dead_letters(request: PageRequest, visitor: Visitor, queue: str) -> HttpResponse:
    require_act(visitor)
    match asked(request)["do"]:
        case "replay":
            return await confirm(request, visitor, await _replay(request, visitor, queue))
        case "purge":
            return await confirm(request, visitor, await _purge(request, visitor, queue))
    raise Http404


async def _replay(request: PageRequest, visitor: Visitor, queue: str) -> Action:
    given = asked(request).getlist("id")[:SELECTED]
    ids = [int(one) for one in given if one.isascii() and one.isdigit() and len(one) < 19]
    return replay_dead_letters(visitor, queue, await queries.still_open(visitor.tenant.pk, queue, ids))


def replay_dead_letters(visitor: Visitor, queue: str, found: list[tuple[int, str]], *, back: str = "") -> Action:
    """Push these dead letters, (number, error), again."""
    tenant_id = visitor.tenant.pk

    async def perform(confirmed: Confirmed) -> Done:
        done = await replay(
            tenant_id=tenant_id,
            numbers=[number for number, _ in found],
            actor=confirmed.actor,
            reason=confirmed.reason,
            target=f"queue {queue}",
        )
        figures.forget(tenant_id, queue)
        return done

    return Action(
        name="deadmessage.replay",
        label="Replay",
        target=f"queue {queue}",
        count=len(found),
        noun="dead letter",
        warning=REPLAY_WARNING,
        perform=perform,
        back=back or address("queue_dead_letters", queue, tenant=visitor.tenant.slug),
        fields=[("do", "replay"), *(("id", str(number)) for number, _ in found)],
        shown=[f"{number}: {error[:120]}" for number, error in found[:SHOWN]],
        more=max(0, len(found) - SHOWN),
    )


async def _purge(request: PageRequest, visitor: Visitor, queue: str) -> Action:
    data = asked(request)
    group, tenant_id = data.get("group", "").replace("\0", ""), visitor.tenant.pk
    filters = {"queue": queue, "group": group, "partition": "", "from": None, "to": None}
    _, count = await dead_letters.listed(tenant_id, filters, limit=0, offset=0)

    async def change() -> Done:
        purged = await dead_letters.purge(tenant_id, queue, group)
        figures.forget(tenant_id, queue)
        return Done(rows=purged)

    return Action(
        name="deadmessage.purge",
        label="Purge dead letters",
        target=f"queue {queue}" + (f", group {group}" if group else ""),
        count=count,
        noun="dead letter",
        warning="They are deleted with their payloads. This cannot be undone.",
        perform=recorded(change, tenant_id=tenant_id),
        back=address("queue_dead_letters", queue, tenant=visitor.tenant.slug),
        fields=[("do", "purge"), ("group", group)],
        severe=True,
    )


# -- A message ---------------------------------------------------------------------------------------------


async def of_message(
    request: PageRequest, visitor: Visitor, of: queries.PartitionPositions, message: queries.StoredMessage
) -> HttpResponse:
    require_act(visitor)
    back = address("queue_message", of.id, message.seq, tenant=visitor.tenant.slug)
    match asked(request)["do"]:
        case "replay":
            found = [(one.id, one.error) for one in message.given_up if one.ended_at is None]
            return await confirm(request, visitor, replay_dead_letters(visitor, of.queue, found, back=back))
        case "bury":
            return await confirm(request, visitor, _make_dead_letter(visitor, of, message, back))
    raise Http404


def _make_dead_letter(
    visitor: Visitor, of: queries.PartitionPositions, message: queries.StoredMessage, back: str
) -> Action:
    buried = {one.group for one in message.given_up}
    behind = [
        position.group for position in of.positions if position.cursor < message.seq and position.group not in buried
    ]

    async def change() -> Done:
        return Done(rows=await dead_letters.make(visitor.tenant.pk, of.id, message.transaction_id))

    return Action(
        name="message.bury",
        label="Move to the dead letters",
        target=f"message {message.transaction_id} of queue {of.queue}",
        count=len(behind),
        noun="consumer group",
        warning="These groups no longer receive the message. It stays in the dead letters until it is replayed or purged.",
        perform=recorded(change, tenant_id=visitor.tenant.pk, detail={"partition": of.name, "seq": message.seq}),
        back=back,
        fields=[("do", "bury")],
        shown=[named(group) for group in behind[:SHOWN]],
        more=max(0, len(behind) - SHOWN),
    )
