"""What the pages of webhooks can do, each as an order that is confirmed first; a test message needs no reason."""

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect

from queueing.console.confirm import Order, guarded
from queueing.console.operate import asked
from queueing.models import WebhookDelivery, WebhookEndpoint
from queueing.outbound import deliveries, endpoints
from queueing.templatetags.queues import address
from registry.edge.pages import PageRequest
from registry.edge.viewer import Visitor
from registry.errors import Problem

SHOWN_ONCE = "The secret is {secret} – copy it now: it is kept sealed and is not shown again."
SELECTED = 100  # deliveries of one replay by hand


async def of_endpoint(request: PageRequest, visitor: Visitor, endpoint: WebhookEndpoint) -> HttpResponse:
    match asked(request)["do"]:
        case "test" if request.method == "POST":
            return await _test(request, visitor, endpoint)
        case "enable" | "disable" as verb:
            order = _switch(visitor, endpoint, enabled=verb == "enable")
        case "delete":
            order = _delete(visitor, endpoint)
        case "rotate":
            order = _rotate(request, visitor, endpoint)
        case "replay":
            order = await _replay(request, visitor, endpoint)
        case "replay-dead":
            order = await _replay_dead(visitor, endpoint)
        case _:
            raise Http404
    return await guarded(request, visitor, order)


async def of_delivery(
    request: PageRequest, visitor: Visitor, endpoint: WebhookEndpoint, delivery: WebhookDelivery
) -> HttpResponse:
    if asked(request)["do"] != "replay":
        raise Http404
    back = address("webhook_delivery", delivery.pk, tenant=visitor.tenant.slug)
    return await guarded(request, visitor, await _replay_order(visitor, endpoint, [delivery.pk], back))


def _here(visitor: Visitor, endpoint: WebhookEndpoint) -> str:
    return address("webhook_endpoint", endpoint.uuid, tenant=visitor.tenant.slug)


async def _test(request: PageRequest, visitor: Visitor, endpoint: WebhookEndpoint) -> HttpResponse:
    try:
        number = await deliveries.send_test(tenant_id=visitor.tenant.pk, uuid=endpoint.uuid)
    except Problem as problem:
        messages.error(request, problem.detail)
        return redirect(_here(visitor, endpoint))
    return redirect(address("webhook_delivery", number, tenant=visitor.tenant.slug))


def _switch(visitor: Visitor, endpoint: WebhookEndpoint, *, enabled: bool) -> Order:
    async def perform() -> int:
        return int(await endpoints.switch(tenant_id=visitor.tenant.pk, uuid=endpoint.uuid, enabled=enabled))

    on = "It goes on where it stopped: what happened meanwhile is delivered now."
    off = "Nothing is sent there any more. What happens meanwhile waits, and is delivered when it is switched on again."
    return Order(
        name=f"endpoint.{'enable' if enabled else 'disable'}",
        label="Switch on" if enabled else "Switch off",
        target=endpoint.url,
        count=int(endpoint.enabled is not enabled),
        noun="endpoint",
        warning=on if enabled else off,
        perform=perform,
        back=_here(visitor, endpoint),
        fields=[("do", "enable" if enabled else "disable")],
    )


def _delete(visitor: Visitor, endpoint: WebhookEndpoint) -> Order:
    async def perform() -> int:
        return int(await endpoints.delete(tenant_id=visitor.tenant.pk, uuid=endpoint.uuid))

    return Order(
        name="endpoint.delete",
        label="Delete",
        target=endpoint.url,
        count=1,
        noun="endpoint",
        warning="Its deliveries and their log go with it, its secret too. Nothing brings them back.",
        perform=perform,
        back=address("webhooks", tenant=visitor.tenant.slug),
        fields=[("do", "delete")],
        severe=True,
    )


def _rotate(request: PageRequest, visitor: Visitor, endpoint: WebhookEndpoint) -> Order:
    async def perform() -> int:
        secret = await endpoints.rotate(tenant_id=visitor.tenant.pk, uuid=endpoint.uuid)
        messages.warning(request, SHOWN_ONCE.format(secret=secret))
        return 1

    return Order(
        name="endpoint.rotate",
        label="Replace the secret",
        target=endpoint.url,
        count=1,
        noun="endpoint",
        warning="For 24 hours both secrets sign, so that the receiver can change over without losing anything.",
        perform=perform,
        back=_here(visitor, endpoint),
        fields=[("do", "rotate")],
    )


async def _replay(request: PageRequest, visitor: Visitor, endpoint: WebhookEndpoint) -> Order:
    given = asked(request).getlist("id")[:SELECTED]
    ids = [int(one) for one in given if one.isascii() and one.isdigit() and len(one) < 19]
    return await _replay_order(visitor, endpoint, ids, _here(visitor, endpoint))


async def _replay_order(visitor: Visitor, endpoint: WebhookEndpoint, ids: list[int], back: str) -> Order:
    async def perform() -> int:
        return await deliveries.replay_of(endpoint, ids=ids)

    return Order(
        name="delivery.replay",
        label="Deliver again",
        target=endpoint.url,
        count=await deliveries.replayable(endpoint, ids=ids) if endpoint.enabled else 0,
        noun="message",
        warning="Each is sent under the same webhook-id as before: a receiver that knows it counts it once.",
        perform=perform,
        back=back,
        fields=[("do", "replay"), *(("id", str(number)) for number in ids)],
        detail={"ids": ids},
    )


async def _replay_dead(visitor: Visitor, endpoint: WebhookEndpoint) -> Order:
    async def perform() -> int:
        return await deliveries.replay_of(endpoint, dead_only=True)

    return Order(
        name="delivery.replay",
        label="Deliver all again that were given up",
        target=endpoint.url,
        count=await deliveries.replayable(endpoint, dead_only=True) if endpoint.enabled else 0,
        noun="message",
        warning="Each is sent under the same webhook-id as before, the oldest first.",
        perform=perform,
        back=_here(visitor, endpoint),
        fields=[("do", "replay-dead")],
    )
