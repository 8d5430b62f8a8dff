"""The home page of a tenant: what needs attention, figures of a range of time, processors, and a sandbox's controls."""

import asyncio
import json
import math
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from payments.books import figures
from payments.books.figures import RANGES, PastRange, Unfinished
from payments.money import decimal_text
from payments.processors.sandbox_behaviours import BEHAVIOURS, behaviour_of
from payments.routing.pages.processors import ProcessorCard, cards
from registry.data import database
from registry.data.cache import Cached
from registry.edge.pages import PageRequest, known, nowhere, page
from registry.edge.viewer import Visitor, visitor_of
from registry.models import Tenant
from registry.operators import attention
from registry.operators.attention import COUNTED, Item, Severity, counted

LINES = ("blue", "amber", "violet", "green", "grey")  # colours of the processors' lines, in the cards' order
PRESENT_FRESH = 1.0  # seconds; each open page asks every 2 s, and all pages of a process share one answer
PAST_FRESH = 5.0  # seconds; the shortest point of a chart is a minute
PAST_STALE = 10.0  # seconds that pages get the value before, while a new one is read
KEPT = 1_000  # tenants
USUAL = {
    Tenant.Mode.SANDBOX: "1h",
    Tenant.Mode.LIVE: "24h",
}  # range without one in the address: in a sandbox people look for what they just sent
SHOWN = 4  # items of attention, without `?attention=all`: the figures must be in the first view
LOOKS = {
    Severity.CRITICAL: {"shape": "✕", "colour": "red", "word": "Critical"},
    Severity.WARNING: {"shape": "◑", "colour": "amber", "word": "Warning"},
    Severity.NOTICE: {"shape": "○", "colour": "blue", "word": "Notice"},
}
FOR_GUESTS = ("processors.",)  # beginnings of the names of sources that guests of the open tenant may see


async def _present(tenant_id: int) -> dict[str, Any]:
    return {**await figures.present(tenant_id), "cards": await cards(tenant_id)}


async def _past(key: tuple[int, str]) -> dict[str, Any]:
    tenant_id, within = key
    return await figures.past(tenant_id, RANGES[within])


async def _needs(tenant_id: int) -> list[Item]:
    return await attention.items([tenant_id])


presents: Cached[int, dict[str, Any]] = Cached(_present, fresh=PRESENT_FRESH, kept=KEPT)
pasts: Cached[tuple[int, str], dict[str, Any]] = Cached(_past, fresh=PAST_FRESH, stale=PAST_STALE, kept=KEPT)
needs: Cached[int, list[Item]] = Cached(
    _needs, fresh=PRESENT_FRESH, kept=KEPT
)  # an item that was resolved is gone at once


@page("GET", "HEAD")
async def home(request: PageRequest) -> HttpResponse:
    """A tenant's figures and processors, updated live."""
    visitor = await visitor_of(request, guests=True)
    if visitor is None:
        return await nowhere(request)
    return await shown(request, visitor)


@page("GET", "HEAD")
async def overview(request: PageRequest) -> HttpResponse:
    """The part of the page that changes: attention, figures, chart data, processors. Refreshed by the page."""
    return render(request, "payments/_overview.html", await overview_of(request, await known(request, guests=True)))


async def shown(request: HttpRequest, visitor: Visitor, **more: Any) -> HttpResponse:
    """The page; `more`: a form that was refused."""
    context = {**await overview_of(request, visitor), **more}
    return render(request, "payments/home.html", context, status=422 if more else 200)


async def overview_of(request: HttpRequest, visitor: Visitor) -> dict[str, Any]:
    """What the part that changes shows, to this visitor."""
    usual = RANGES[USUAL[Tenant.Mode(visitor.tenant.mode)]]
    within = RANGES.get(request.GET.get("range", ""), usual)
    await (
        database.release()
    )  # a hundred waiting requests that hold connections would leave none for the one they wait for
    tenant, whole = visitor.tenant, request.GET.get("attention") == "all"
    present, past, needed = await asyncio.gather(
        presents.get(tenant.pk), pasts.get((tenant.pk, within.key)), needs.get(tenant.pk)
    )
    items = [_item(item, visitor) for item in needed if _may_see(item, visitor)]
    processors = [_processor(one, number, past) for number, one in enumerate(present["cards"])]
    balance = {unit: (0, amount) for unit, amount in past["balance"].items()}
    return {
        "visitor": visitor,
        "range": within,
        "ranges": _ranges(visitor, within),
        "items": items if whole else items[:SHOWN],
        "more_items": 0 if whole else len(items[SHOWN:]),
        "here": urlencode({"tenant": tenant.slug, "range": within.key, **({"attention": "all"} if whole else {})}),
        "present": present,
        "parts": _parts(present["unfinished"]),
        "past": past,
        "volumes": _amounts(past["volumes"], tenant.currency),
        # rounded down: 100 % means that none failed
        "success": None if (rate := past["successRate"]) is None else math.floor(rate * 1000) / 1000,
        "balances": _amounts(balance, tenant.currency) if visitor.role else None,
        "times": past["times"].get(None),
        "processors": processors,
        "series": json.dumps(_series(past["series"], processors), separators=(",", ":")),
        "any_sandbox": any("switches" in p for p in processors),
        "any_card": any(c.processor.kind == "stripe" and c.processor.enabled for c in present["cards"]),
        "add_processor": f".venv/bin/python manage.py processor add {tenant.slug} default --kind sandbox --fee 0.05",
    }


def _ranges(visitor: Visitor, chosen: PastRange) -> list[dict[str, Any]]:
    return [
        {
            "label": one.label,
            "address": f"/?{urlencode({'tenant': visitor.tenant.slug, 'range': one.key})}",
            "current": one is chosen,
        }
        for one in RANGES.values()
    ]


# -- Attention -----------------------------------------------------------------------------------------------


def _may_see(item: Item, visitor: Visitor) -> bool:
    return bool(visitor.role) or item.name.startswith(FOR_GUESTS)


def _item(item: Item, visitor: Visitor) -> dict[str, Any]:
    """An item with the address of its action, which guests and those without a page do not have."""
    address = _address(item.page, visitor) if item.page else item.admin if visitor.staff else ""
    return {
        "sentence": item.sentence,
        "since": item.since,
        "action": item.action if visitor.role and address else "",
        "address": address,
        **LOOKS.get(item.severity, LOOKS[Severity.NOTICE]),
    }


def _address(path: str, visitor: Visitor) -> str:
    """The address of a page with `?tenant=` added to its query."""
    parts = urlsplit(path)
    query = "&".join(filter(None, (urlencode({"tenant": visitor.tenant.slug}), parts.query)))
    return urlunsplit(parts._replace(query=query))


# -- Figures -------------------------------------------------------------------------------------------------


def _amounts(found: dict[str, tuple[int, int]], usual: str) -> list[dict[str, Any]]:
    """Counts and amounts by currency: the tenant's own first, then those with most payments; none is zero in its own."""
    order = sorted(found, key=lambda unit: (unit != usual, -found[unit][0], unit)) or [usual]
    return [
        {"currency": unit, "count": count, "amount": decimal_text(amount, unit)}
        for unit in order
        for count, amount in [found.get(unit, (0, 0))]
    ]


def _parts(found: Unfinished) -> str:
    """What the unfinished payments wait for: 95 due, 7 retrying. Of the first COUNTED, where there are more."""
    parts = {
        "in progress": found.in_progress,
        "due": found.due,
        "retrying": found.retrying,
        "scheduled": found.scheduled,
        "given up": found.given_up,
        "with the payer": found.with_payer,
    }
    said = ", ".join(f"{counted(count)} {word}" for word, count in parts.items() if count) or "Nothing waits"
    return f"{said}, of the first {COUNTED:,}" if found.more else said


def _processor(card: ProcessorCard, number: int, past: dict[str, Any]) -> dict[str, Any]:
    """A processor's card: its colour, its times to settle, and the switches of a sandbox."""
    processor = card.processor
    found: dict[str, Any] = {
        "card": card,
        "id": processor.pk,
        "name": processor.name,
        "colour": LINES[number % len(LINES)],
        "times": past["times"].get(processor.pk),
        "share": past["shares"].get(processor.pk, 0),
    }
    if processor.kind == "sandbox":
        chosen = behaviour_of(processor.options)
        found["effect"] = BEHAVIOURS[chosen].effect
        if card.breaker != "closed" and not BEHAVIOURS[chosen].bad:
            found["effect"] = "It answers again: its breaker closes once a probe has succeeded."
        found["switches"] = [
            {"value": v, "word": b.word, "bad": b.bad, "on": v == chosen} for v, b in BEHAVIOURS.items()
        ]
    return found


def _series(series: Any, processors: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Data of the charts; response times in the cards' order."""
    empty = [None] * len(series["at"])
    return {**series, "response": [[p["colour"], series["response"].get(p["id"], empty)] for p in processors]}
