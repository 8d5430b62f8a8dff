"""Pages of the queue console: queues, one queue, a partition, a message, dead letters. Its actions are in operate.py."""

import json
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

import msgspec
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from queueing import spill
from queueing.broker import crypto, ids, maintenance, traces
from queueing.broker import dead_letters as dead
from queueing.broker.errors import UnknownQueue
from queueing.console import figures, operate, queries
from queueing.templatetags.queues import address, unescaped
from registry.data import database
from registry.edge.pages import KEY_HEADER, PageRequest, address_of, known, nowhere, page
from registry.edge.viewer import Visitor, visitor_of
from registry.operators.confirm import asked

ROWS = 25  # queues, partitions, messages or dead letters of one page
GROUPS = 100  # consumer groups shown of one queue
SHOWN_BYTES = 64 * 1024  # of a payload; the API returns all of it
SNIPPET = 300  # characters of a dead letter's payload in the list


def _number(request: HttpRequest, name: str, default: int = 1) -> int:
    """A whole number of the query, at least 1; `default` where it is not a number."""
    value = request.GET.get(name, "")
    return max(int(value), 1) if value.isascii() and value.isdigit() and len(value) < 19 else default


def _pager(request: HttpRequest, found: int, total: int) -> dict[str, Any]:
    """Links to the previous and the next page."""
    here, kept = _number(request, "page"), {k: v for k, v in request.GET.items() if k != "page"}
    return {
        "total": total,
        "first": (here - 1) * ROWS + 1,
        "last": (here - 1) * ROWS + found,
        "newer": f"{request.path}?{urlencode({**kept, 'page': here - 1})}" if here > 1 else "",
        "older": f"{request.path}?{urlencode({**kept, 'page': here + 1})}" if here * ROWS < total else "",
    }


def _offset(request: HttpRequest) -> int:
    return (_number(request, "page") - 1) * ROWS


def _series(snapshot: figures.Snapshot) -> str:
    return json.dumps(figures.series(snapshot), separators=(",", ":"))


# -- Queues ------------------------------------------------------------------------------------------------


@page("GET", "HEAD", "POST")
async def queues(request: PageRequest) -> HttpResponse:
    """All queues; for htmx only the part that is refreshed."""
    visitor = await visitor_of(request)
    if visitor is None:
        return await nowhere(request)
    if "do" in asked(request):
        return await operate.of_tenant(request, visitor)
    await database.release()  # while waiting for the cached snapshot, whose query needs a connection
    context = await _overview(request, visitor)
    return render(request, "queueing/_queues.html" if request.htmx else "queueing/queues.html", context)


async def _overview(request: PageRequest, visitor: Visitor) -> dict[str, Any]:
    snapshot = await figures.snapshots.get(visitor.tenant.pk)
    wanted = request.GET.get("q", "").strip()
    matching = [one for one in snapshot.queues if wanted.lower() in one.depth.name.lower()]
    shown = matching[_offset(request) :][:ROWS]
    return {
        "visitor": visitor,
        "snapshot": snapshot,
        "series": _series(snapshot),
        "queues": shown,
        "wanted": wanted,
        "pager": _pager(request, len(shown), len(matching)),
        "modes": await maintenance.modes(visitor.tenant.pk),
        "spilled": await _spilled(),
        "push_command": _push_command(request, "orders"),
        "here": request.get_full_path(),
    }


async def _spilled() -> dict[str, Any]:
    """The state of this process's spill. All tenants share it: the page shows its size to staff only."""
    found = await spill.state()
    refused = next((one.refused for one in found if one.refused), "")
    waiting = sum(one.records for one in found)
    state = (
        ("✕", "red", "takes nothing") if refused else ("◑", "amber", "in use") if waiting else ("●", "green", "empty")
    )
    return {"shape": state[0], "colour": state[1], "word": state[2], "waiting": waiting, "refused": refused}


def _push_command(request: PageRequest, queue: str) -> str:
    body = json.dumps({"items": [{"queue": queue, "payload": {"order": 1}}]}, ensure_ascii=False).replace(
        "'", "\\u0027"
    )
    where = f"{address_of(request)}/api/v1/push{KEY_HEADER}"
    return f"curl {where} -H 'Content-Type: application/json' -d '{body}'"


# -- One queue ---------------------------------------------------------------------------------------------


@page("GET", "HEAD", "POST")
async def queue(request: PageRequest, name: str) -> HttpResponse:
    """A queue with its groups and partitions."""
    visitor = await known(request)
    await database.release()
    try:
        queue_figures, snapshot = await _figures(visitor, name)
    except Http404:
        return await _elsewhere(visitor, name)
    if "do" in asked(request):
        return await operate.of_queue(request, visitor, queue_figures.depth)
    context = await _queue(request, visitor, queue_figures, snapshot)
    return render(request, "queueing/_queue.html" if request.htmx else "queueing/queue.html", context)


async def _figures(visitor: Visitor, name: str) -> tuple[figures.QueueFigures, figures.Snapshot]:
    snapshot = await figures.of_queue.get((visitor.tenant.pk, name))
    if not snapshot.queues or "\0" in name:
        raise Http404
    return snapshot.queues[0], snapshot


async def _elsewhere(visitor: Visitor, name: str) -> HttpResponse:
    """Redirect `queues/orders/dead` to the dead letters of orders, unless a queue has that name."""
    parent = name.removesuffix("/dead")
    if parent == name or not parent:
        raise Http404
    await _figures(visitor, parent)
    return redirect(address("queue_dead_letters", parent, tenant=visitor.tenant.slug))


async def _queue(
    request: PageRequest, visitor: Visitor, queue_figures: figures.QueueFigures, snapshot: figures.Snapshot
) -> dict[str, Any]:
    depth, tenant_id = queue_figures.depth, visitor.tenant.pk
    wanted = request.GET.get("q", "").replace("\0", "")
    partitions, total = await figures.partitions.get((tenant_id, depth.id, wanted, ROWS, _offset(request)))
    try:
        known_of = await figures.details.get((tenant_id, depth.name))
    except UnknownQueue:
        raise Http404 from None
    pop = f"{address_of(request)}/api/v1/pop/queue/{quote(depth.name)}"
    return {
        "visitor": visitor,
        "queue_figures": queue_figures,
        "depth": depth,
        "series": _series(snapshot),
        "groups": known_of.groups[:GROUPS],
        "options": known_of.options,
        "partitions": partitions,
        "wanted": wanted,
        "pager": _pager(request, len(partitions), total),
        "push_command": _push_command(request, depth.name),
        "pop_command": f"curl '{pop}'{KEY_HEADER}",
        "here": request.get_full_path(),
    }


# -- Partitions and messages -------------------------------------------------------------------------------


@page("GET", "HEAD")
async def partition(request: PageRequest, partition: UUID) -> HttpResponse:
    """A partition: its consumer groups, and its messages with the newest first."""
    visitor = await known(request)
    of = await _partition(visitor, partition)
    state = request.GET.get("state", "")
    state = state if state in queries.STATES else ""
    before = _number(request, "before", queries.LAST)
    entries = await queries.messages(visitor.tenant.pk, of, state=state, before=before, limit=ROWS + 1)
    more, entries = len(entries) > ROWS, entries[:ROWS]
    kept = {"tenant": visitor.tenant.slug, **({"state": state} if state else {})}
    context = {
        "visitor": visitor,
        "partition": of,
        "entries": entries,
        "state": state,
        "states": queries.STATES,
        "newest": f"{request.path}?{urlencode(kept)}" if "before" in request.GET else "",
        "older": f"{request.path}?{urlencode({**kept, 'before': entries[-1].seq})}" if more else "",
        "here": request.get_full_path(),
    }
    return render(request, "queueing/_partition.html" if request.htmx else "queueing/partition.html", context)


async def _partition(visitor: Visitor, partition: UUID) -> queries.PartitionPositions:
    try:
        return await queries.partition(visitor.tenant.pk, ids.partition_number(visitor.tenant.pk, str(partition)))
    except queries.UnknownPartition:
        raise Http404 from None


@page("GET", "HEAD", "POST")
async def message(request: PageRequest, partition: UUID, seq: int) -> HttpResponse:
    """One message: its payload, its state per consumer group, its traces."""
    visitor = await known(request)
    of = await _partition(visitor, partition)
    if seq > of.last_seq:
        raise Http404
    try:
        found = await queries.message(visitor.tenant.pk, of.number, seq)
    except queries.UnknownMessage:
        raise Http404 from None
    if "do" in asked(request):
        return await operate.of_message(request, visitor, of, found)
    opened = [one for one in found.given_up if one.ended_at is None]
    context = {
        "visitor": visitor,
        "partition": of,
        "message": found,
        "state": of.state_of(seq, bool(opened)),
        "payload": _shown(visitor, found),
        "readers": [_reader(position, seq, found.given_up) for position in of.positions],
        "open_letters": opened,
        "may_bury": any(position.cursor < seq for position in of.positions) and len(opened) < len(of.positions),
        "traces": await _traces(visitor, of.id, found.transaction_id),
        "here": request.get_full_path(),
    }
    return render(request, "queueing/_message.html" if request.htmx else "queueing/message.html", context)


def _shown(visitor: Visitor, found: queries.StoredMessage) -> dict[str, Any]:
    """The payload, or why the visitor cannot read it."""
    if found.key_id is not None and not visitor.may_act:
        return {"why": "It is encrypted. Operators and owners of the tenant may read it."}
    try:
        payload = found.payload(visitor.tenant.pk)
    except crypto.Undecipherable as error:
        return {"why": f"It cannot be read: {error.detail}."}
    return {"text": pretty(payload), "size": len(payload), "cut": len(payload) > SHOWN_BYTES, "most": SHOWN_BYTES}


def pretty(payload: bytes) -> str:
    """JSON on several lines, its numbers as they were written; a payload that is too long is cut and not formatted."""
    if len(payload) > SHOWN_BYTES:
        return payload[:SHOWN_BYTES].decode(errors="replace")
    try:
        return unescaped(msgspec.json.format(payload, indent=2).decode(errors="replace"))
    except (msgspec.MsgspecError, RecursionError):
        return payload.decode(errors="replace")


def _reader(position: queries.GroupPosition, seq: int, given_up: list[queries.GivenUp]) -> dict[str, Any]:
    mine = next((one for one in given_up if one.group == position.group), None)
    is_open = mine is not None and mine.ended_at is None
    done = position.cursor >= seq
    state = "dead_letter" if is_open else "processing" if position.holds(seq) else "completed" if done else "pending"
    return {
        "position": position,
        "given_up": mine,
        "state": "ended" if mine and not is_open else state,
        "next": seq == position.cursor + 1,
    }


async def _traces(visitor: Visitor, partition: str, transaction_id: str) -> list[dict[str, Any]]:
    found = await traces.of_message(visitor.tenant.pk, partition, transaction_id)
    return [{"trace": one, "text": pretty(bytes(one.data))} for one in found]


# -- Dead letters ------------------------------------------------------------------------------------------


@page("GET", "HEAD", "POST")
async def dead_letters(request: PageRequest, name: str) -> HttpResponse:
    """The open dead letters of a queue, with their errors."""
    visitor = await known(request)
    await database.release()
    queue_figures, _ = await _figures(visitor, name)
    if "do" in asked(request):
        return await operate.of_dead_letters(request, visitor, name)
    filters = {key: request.GET.get(key, "").replace("\0", "") for key in ("group", "partition")}
    found, total = await dead.listed(
        visitor.tenant.pk, {**filters, "queue": name, "from": None, "to": None}, limit=ROWS, offset=_offset(request)
    )
    context = {
        "visitor": visitor,
        "depth": queue_figures.depth,
        "letters": [{"letter": one, "data": _snippet(visitor, one)} for one in found],
        "filters": filters,
        "filtered": any(filters.values()),
        "pager": _pager(request, len(found), total),
        "here": request.get_full_path(),
    }
    return render(request, "queueing/dead_letters.html", context)


def _snippet(visitor: Visitor, letter: dead.QueueDeadLetter) -> str:
    if letter.is_encrypted and not visitor.may_act:
        return "encrypted; operators and owners may read it"
    if letter.data is None:
        return letter.data_error or ""
    return bytes(letter.data)[: SNIPPET * 4].decode(errors="ignore")[:SNIPPET]
