"""Guarded actions on webhook endpoints and deliveries, of the webhooks' pages and of the admin; and the test message."""

from collections.abc import Awaitable, Callable

from django.contrib import messages
from django.db.models.functions import Now
from django.http import Http404, HttpResponse
from django.shortcuts import redirect

from queueing.models import WebhookDelivery, WebhookEndpoint
from queueing.outbound import deliveries, endpoints, job_secret
from queueing.templatetags.queues import address
from registry.edge.pages import PageRequest
from registry.edge.viewer import Visitor
from registry.errors import Problem
from registry.operators.confirm import Action, Confirmed, asked, confirm, recorded
from registry.operators.decide import Done
from registry.operators.rows import guarded

JOB_SECRET = "The job secret is {secret}"
SHOWN_ONCE = "The secret is {secret} – copy it now: it is stored encrypted and is not shown again."
SELECTED = 100  # deliveries of one replay by hand
ON = "Delivery continues where it stopped: events since then are delivered now."
OFF = "Nothing is sent there any more. New events wait, and are delivered when the endpoint is switched on again."
BOTH_SIGN = "For 24 hours both secrets sign, so that the receiver can change to the new one without losing events."
SENT_AGAIN = "Each is sent with the same webhook-id as before, so that a receiver can recognise a duplicate."


async def of_endpoint(request: PageRequest, visitor: Visitor, endpoint: WebhookEndpoint) -> HttpResponse:
    match asked(request)["do"]:
        case "test" if request.method == "POST":
            return await _test(request, visitor, endpoint)
        case "enable" | "disable" as verb:
            action = _switch(visitor, endpoint, enabled=verb == "enable")
        case "delete":
            action = _delete(visitor, endpoint)
        case "rotate":
            action = _rotate(request, visitor, endpoint)
        case "replay":
            action = await _replay(request, visitor, endpoint)
        case "replay-dead":
            action = await _replay_dead(visitor, endpoint)
        case _:
            raise Http404
    return await confirm(request, visitor, action)


async def of_delivery(
    request: PageRequest, visitor: Visitor, endpoint: WebhookEndpoint, delivery: WebhookDelivery
) -> HttpResponse:
    if asked(request)["do"] != "replay":
        raise Http404
    back = address("webhook_delivery", delivery.pk, tenant=visitor.tenant.slug)
    return await confirm(request, visitor, await _replay_ids(visitor, endpoint, [delivery.pk], back))


def _here(visitor: Visitor, endpoint: WebhookEndpoint) -> str:
    return address("webhook_endpoint", endpoint.uuid, tenant=visitor.tenant.slug)


async def _test(request: PageRequest, visitor: Visitor, endpoint: WebhookEndpoint) -> HttpResponse:
    try:
        number = await deliveries.send_test(tenant_id=visitor.tenant.pk, uuid=endpoint.uuid)
    except Problem as problem:
        messages.error(request, problem.detail)
        return redirect(_here(visitor, endpoint))
    return redirect(address("webhook_delivery", number, tenant=visitor.tenant.slug))


def _switch(visitor: Visitor, endpoint: WebhookEndpoint, *, enabled: bool) -> Action:
    async def change() -> Done:
        return Done(rows=int(await endpoints.switch(tenant_id=visitor.tenant.pk, uuid=endpoint.uuid, enabled=enabled)))

    return Action(
        name=f"endpoint.{'enable' if enabled else 'disable'}",
        label="Switch on" if enabled else "Switch off",
        target=endpoint.url,
        count=int(endpoint.enabled is not enabled),
        noun="endpoint",
        warning=ON if enabled else OFF,
        perform=recorded(change, tenant_id=visitor.tenant.pk),
        back=_here(visitor, endpoint),
        fields=[("do", "enable" if enabled else "disable")],
    )


def _delete(visitor: Visitor, endpoint: WebhookEndpoint) -> Action:
    async def change() -> Done:
        return Done(rows=int(await endpoints.delete(tenant_id=visitor.tenant.pk, uuid=endpoint.uuid)))

    return Action(
        name="endpoint.delete",
        label="Delete",
        target=endpoint.url,
        count=1,
        noun="endpoint",
        warning="Its deliveries, their log and its secret are deleted too. This cannot be undone.",
        perform=recorded(change, tenant_id=visitor.tenant.pk),
        back=address("webhooks", tenant=visitor.tenant.slug),
        fields=[("do", "delete")],
        severe=True,
    )


def _rotate(request: PageRequest, visitor: Visitor, endpoint: WebhookEndpoint) -> Action:
    async def change() -> Done:
        secret = await endpoints.rotate(tenant_id=visitor.tenant.pk, uuid=endpoint.uuid)
        messages.warning(request, SHOWN_ONCE.format(secret=secret))
        return Done(rows=1)

    return Action(
        name="endpoint.rotate",
        label="Replace the secret",
        target=endpoint.url,
        count=1,
        noun="endpoint",
        warning=BOTH_SIGN,
        perform=recorded(change, tenant_id=visitor.tenant.pk),
        back=_here(visitor, endpoint),
        fields=[("do", "rotate")],
    )


async def _replay(request: PageRequest, visitor: Visitor, endpoint: WebhookEndpoint) -> Action:
    given = asked(request).getlist("id")[:SELECTED]
    ids = [int(one) for one in given if one.isascii() and one.isdigit() and len(one) < 19]
    return await _replay_ids(visitor, endpoint, ids, _here(visitor, endpoint))


async def _replay_ids(visitor: Visitor, endpoint: WebhookEndpoint, ids: list[int], back: str) -> Action:
    async def change() -> Done:
        return Done(rows=await deliveries.replay_of(endpoint, ids=ids))

    return Action(
        name="delivery.replay",
        label="Deliver again",
        target=endpoint.url,
        count=await deliveries.replayable(endpoint, ids=ids) if endpoint.enabled else 0,
        noun="message",
        warning=SENT_AGAIN,
        perform=recorded(change, tenant_id=visitor.tenant.pk, detail={"ids": ids}),
        back=back,
        fields=[("do", "replay"), *(("id", str(number)) for number in ids)],
    )


async def _replay_dead(visitor: Visitor, endpoint: WebhookEndpoint) -> Action:
    async def change() -> Done:
        return Done(rows=await deliveries.replay_of(endpoint, dead_only=True))

    return Action(
        name="delivery.replay",
        label="Deliver all again that were given up",
        target=endpoint.url,
        count=await deliveries.replayable(endpoint, dead_only=True) if endpoint.enabled else 0,
        noun="message",
        warning="Each is sent under the same webhook-id as before, the oldest first.",
        perform=recorded(change, tenant_id=visitor.tenant.pk),
        back=_here(visitor, endpoint),
        fields=[("do", "replay-dead")],
    )


# -- The job secret ----------------------------------------------------------------------------------------------


async def of_job_secret(request: PageRequest, visitor: Visitor) -> HttpResponse:
    match asked(request)["do"]:
        case "show":
            action = _show_job_secret(request, visitor)
        case "rotate":
            action = _rotate_job_secret(request, visitor)
        case _:
            raise Http404
    return await confirm(request, visitor, action)


def _show_job_secret(request: PageRequest, visitor: Visitor) -> Action:
    async def change() -> Done:
        secrets = await job_secret.of(visitor.tenant.pk)
        messages.warning(request, JOB_SECRET.format(secret=secrets.newest))
        return Done(rows=1)

    return _of_job_secret(
        visitor, "show", "Show the job secret", "Anyone who knows it can sign as the service.", change
    )


def _rotate_job_secret(request: PageRequest, visitor: Visitor) -> Action:
    async def change() -> Done:
        secret = await job_secret.rotate(tenant_id=visitor.tenant.pk)
        messages.warning(request, JOB_SECRET.format(secret=secret))
        return Done(rows=1)

    return _of_job_secret(visitor, "rotate", "Replace the job secret", BOTH_SIGN, change)


def _of_job_secret(
    visitor: Visitor, do: str, label: str, warning: str, change: Callable[[], Awaitable[Done]]
) -> Action:
    return Action(
        name=f"job_secret.{do}",
        label=label,
        target="job secret",
        count=1,
        noun="secret",
        warning=warning,
        perform=recorded(change, tenant_id=visitor.tenant.pk),
        back=address("webhook_callbacks", tenant=visitor.tenant.slug),
        fields=[("do", do)],
    )


# -- In the admin ------------------------------------------------------------------------------------------------

DISABLE = guarded(
    "endpoint.disable",
    label="Switch off",
    warning=OFF,
    expects={"enabled": True},
    sets={
        "enabled": False,
        "disabled_reason": "Switched off by an operator of the service.",
        "changed_at": Now(),
    },
)
ENABLE = guarded(
    "endpoint.enable",
    label="Switch on",
    warning=ON,
    expects={"enabled": False},
    sets={"enabled": True, "disabled_reason": "", "failing_since": None, "rest_until": None, "changed_at": Now()},
)


async def _replay_rows(confirmed: Confirmed) -> Done:
    rows = [(row.tenant_id, row.pk) for row in confirmed.action.rows]
    done = await deliveries.replay_for(deliveries=rows, actor=confirmed.actor, reason=confirmed.reason)
    return Done(rows=done, lost=len(rows) - done)


REPLAY = guarded(
    "delivery.replay",
    label="Deliver again",
    warning=SENT_AGAIN,
    expects={"closed__in": ["delivered", "dead"]},
    perform=_replay_rows,
)
