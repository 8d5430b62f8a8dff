"""Pages of outbound webhooks for a tenant's people: endpoints, deliveries with request and response, the test kit for receivers."""

import asyncio
import json
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from queueing.models import WebhookDelivery, WebhookEndpoint
from queueing.outbound import operate, queries, sources, testkit
from queueing.outbound.endpoints import create
from queueing.outbound.signing import Secrets, new_secret
from queueing.templatetags.queues import address
from registry.data import clock
from registry.edge.pages import KEY_HEADER, PageRequest, address_of, known, nowhere, page
from registry.edge.viewer import Visitor, visitor_of
from registry.errors import Invalid, Problem
from registry.http.client import BadAddress
from registry.models import Tenant
from registry.operators.confirm import asked
from registry.tenants.encryption import Sealed

ROWS = 25  # deliveries per page
KIT_WITHIN = 90.0  # seconds for all checks of the kit together


# -- Endpoints -----------------------------------------------------------------------------------------------


@page("GET", "HEAD", "POST")
async def endpoints(request: PageRequest) -> HttpResponse:
    """All endpoints with their state, and a form that creates one."""
    visitor = await visitor_of(request)
    if visitor is None:
        return await nowhere(request)
    if request.method == "POST":
        return await _create(request, visitor)
    return await _endpoints(request, visitor)


async def _endpoints(request: PageRequest, visitor: Visitor, *, status: int = 200, **more: Any) -> HttpResponse:
    found = await queries.endpoints(visitor.tenant.pk)
    standings = await queries.standings(visitor.tenant.pk, [one.pk for one in found])
    where = f"{address_of(request)}/webhook-endpoints{KEY_HEADER}"
    body = json.dumps({"url": "https://shop.example/hook", "events": ["payment.*"]})
    context = {
        "visitor": visitor,
        "endpoints": [
            {"endpoint": one, "state": queries.state_of(one), "standing": standings[one.pk]} for one in found
        ],
        "types": sources.types(),
        "create_command": f"curl {where} -H 'Content-Type: application/json' -d '{body}'",
        "form": {"events": "*"},
        **more,
    }
    return render(request, "queueing/webhooks/endpoints.html", context, status=status)


async def _create(request: PageRequest, visitor: Visitor) -> HttpResponse:
    if not visitor.may_act:
        raise Http404
    form = {name: request.POST.get(name, "").strip() for name in ("url", "description", "events")}
    form["ordered"] = "on" if request.POST.get("ordered") else ""
    try:
        made, secret = await create(
            tenant_id=visitor.tenant.pk,
            mode=visitor.tenant.mode,
            actor=visitor.actor,
            url=form["url"],
            description=form["description"],
            events=form["events"].replace(",", " ").split() or ["*"],
            ordered=bool(form["ordered"]),
        )
    except Invalid as error:
        errors = {fault["field"]: fault["message"] for fault in error.errors}
        return await _endpoints(request, visitor, status=422, form=form, errors=errors)
    except Problem as problem:
        return await _endpoints(request, visitor, status=problem.status, form=form, errors={"url": problem.detail})
    messages.warning(request, operate.SHOWN_ONCE.format(secret=secret))
    return redirect(address("webhook_endpoint", made.uuid, tenant=visitor.tenant.slug))


@page("GET", "HEAD", "POST")
async def endpoint(request: PageRequest, uuid: UUID) -> HttpResponse:
    """One endpoint: its state, its deliveries, and the actions on it."""
    visitor = await known(request)
    found = await _endpoint(visitor, uuid)
    if "do" in asked(request):
        if not visitor.may_act:
            raise Http404
        return await operate.of_endpoint(request, visitor, found)
    chosen = {name: request.GET.get(name, "") for name in ("status", "type")}
    if chosen["status"] and chosen["status"] not in WebhookDelivery.Status.values:
        raise Http404
    filters = queries.DeliveryFilters(status=chosen["status"] or None, type=chosen["type"].replace("\0", "") or None)
    rows, following = await queries.deliveries(
        visitor.tenant.pk, found.pk, filters, limit=ROWS, before=_before(request)
    )
    standing = (await queries.standings(visitor.tenant.pk, [found.pk]))[found.pk]
    context = {
        "visitor": visitor,
        "endpoint": found,
        "state": queries.state_of(found),
        "standing": standing,
        "signed_with": _signed_with(found),
        "deliveries": rows,
        "older": address("webhook_endpoint", uuid, tenant=visitor.tenant.slug, before=following, **_given(chosen))
        if following
        else "",
        "chosen": chosen,
        "filtered": any(chosen.values()),
        "statuses": WebhookDelivery.Status.choices,
        "types": sources.types(),
    }
    return render(request, "queueing/webhooks/endpoint.html", context)


def _signed_with(endpoint: WebhookEndpoint) -> str:
    """How many secrets sign for it; if they cannot be decrypted, what to do about that."""
    try:
        signing = Secrets.unsealed(endpoint.secrets, place=endpoint.place).signing(clock.now())
    except Sealed as error:
        return error.detail
    return f"{len(signing)} secret{'' if len(signing) == 1 else 's'}"


async def _endpoint(visitor: Visitor, uuid: UUID) -> WebhookEndpoint:
    found = await WebhookEndpoint.async_objects.of(visitor.tenant.pk).filter(uuid=uuid).afirst()
    if found is None:
        raise Http404
    return found


def _before(request: HttpRequest) -> int | None:
    text = request.GET.get("before", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _given(chosen: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in chosen.items() if value}


# -- Callbacks of jobs -----------------------------------------------------------------------------------------


@page("GET", "HEAD", "POST")
async def callbacks(request: PageRequest) -> HttpResponse:
    """Deliveries of callbacks of jobs, and the actions on the secret that signs them."""
    visitor = await known(request)
    if "do" in asked(request):
        if not visitor.may_act:
            raise Http404
        return await operate.of_job_secret(request, visitor)
    found, following = await queries.callbacks(visitor.tenant.pk, limit=ROWS, before=_before(request))
    context = {
        "visitor": visitor,
        "deliveries": [one for one, _ in found],
        "older": address("webhook_callbacks", tenant=visitor.tenant.slug, before=following) if following else "",
    }
    return render(request, "queueing/webhooks/callbacks.html", context)


# -- A delivery ----------------------------------------------------------------------------------------------


@page("GET", "HEAD", "POST")
async def delivery(request: PageRequest, number: int) -> HttpResponse:
    """One delivery: its body, and request and response of each attempt."""
    visitor = await known(request)
    try:
        found, of = await queries.delivery(visitor.tenant.pk, number)
    except Problem:
        raise Http404 from None
    if "do" in asked(request):
        if not visitor.may_act:
            raise Http404
        return await operate.of_delivery(request, visitor, of, found)
    made = await queries.tries(found)
    context = {
        "visitor": visitor,
        "delivery": found,
        "endpoint": of,
        "source": sources.source_of(found.type),
        "body": _pretty(found.body),
        "tries": [{"try": one, "headers": queries.request_headers(found, one)} for one in made],
        "closed": found.closed in ("delivered", "dead"),
    }
    return render(request, "queueing/webhooks/delivery.html", context)


def _pretty(body: str) -> str:
    return json.dumps(json.loads(body), indent=2, ensure_ascii=False)


# -- The test kit ----------------------------------------------------------------------------------------------


@page("GET", "HEAD", "POST")
async def kit(request: PageRequest) -> HttpResponse:
    """Run the test kit against a receiver and show the results."""
    visitor = await known(request)
    if not visitor.may_act:
        raise Http404
    mine = await queries.endpoints(visitor.tenant.pk)
    form = {name: asked(request).get(name, "").strip() for name in ("endpoint", "url", "secret")}
    form["secret"] = form["secret"] or new_secret()
    context: dict[str, Any] = {"visitor": visitor, "endpoints": mine, "form": form, "checks": testkit.checks()}
    status = 200
    if request.method == "POST":
        try:
            context |= await _tried(visitor, mine, form)
        except Invalid as error:
            context["errors"] = {fault["field"]: fault["message"] for fault in error.errors}
            status = 422
    return render(request, "queueing/webhooks/kit.html", context, status=status)


async def _tried(visitor: Visitor, mine: list[WebhookEndpoint], form: dict[str, str]) -> dict[str, Any]:
    """Run all checks. Raises Invalid (422) naming the fields."""
    url, secret = _receiver(mine, form)
    results: list[testkit.CheckResult] = []
    try:
        async with asyncio.timeout(KIT_WITHIN):
            async for one in testkit.run(url, secret, tls_only=visitor.tenant.mode == Tenant.Mode.LIVE):
                results.append(one)  # noqa: PERF401 - results before a time-out are kept
    except BadAddress as error:
        raise Invalid(errors=[{"field": "url", "message": str(error)}]) from None
    except TimeoutError:
        pass  # the results so far are shown
    passed = sum(one.passed for one in results)
    return {"results": results, "url": url, "passed": passed, "behaves": passed == len(testkit.checks())}


def _receiver(mine: list[WebhookEndpoint], form: dict[str, str]) -> tuple[str, str]:
    if form["endpoint"]:
        found = next((one for one in mine if str(one.uuid) == form["endpoint"]), None)
        if found is None:
            raise Http404
        try:
            return found.url, Secrets.unsealed(found.secrets, place=found.place).newest
        except Sealed as error:
            raise Invalid(errors=[{"field": "secret", "message": error.detail}]) from None
    if not form["url"]:
        raise Invalid(errors=[{"field": "url", "message": "Choose an endpoint, or name an address."}])
    if not testkit.is_secret(form["secret"]):
        raise Invalid(errors=[{"field": "secret", "message": "wants whsec_ and base64 of 24 to 64 bytes"}])
    return form["url"], form["secret"]
