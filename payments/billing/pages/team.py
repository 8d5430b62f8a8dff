"""Invitations on the page of the team: invite, show the links, renew, withdraw. Owners only: a link lets anybody join."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect

from payments.billing import invitations
from payments.billing.errors import StepRefused
from payments.models import Invitation
from payments.models.billing import INVITED_FOR
from registry.edge.pages import PageRequest, address_of, console_address
from registry.edge.viewer import Visitor
from registry.errors import TooManyRequests
from registry.models import Membership
from registry.operators import parts


async def _context(request: PageRequest, visitor: Visitor) -> dict[str, Any] | None:
    if not visitor.may_own:
        return None
    found = [one for one in await invitations.of_tenant(visitor.tenant.pk) if not one.accepted_at]
    return {
        "invitations": [_shown(request, one) for one in found],
        "mails": bool(settings.EMAIL_URL),
        "days": INVITED_FOR.days,
        "roles": Membership.Role.choices,
        "form": {"role": Membership.Role.OPERATOR},
        "action": console_address("team", tenant=visitor.tenant.slug),
    }


def _shown(request: PageRequest, invitation: Invitation) -> dict[str, Any]:
    """An invitation with its link; without one where it has expired."""
    expired = invitations.is_expired(invitation)
    link = "" if expired else address_of(request) + invitations.link(invitation)
    return {"row": invitation, "link": link, "until": invitation.created_at + INVITED_FOR}


async def _act(request: PageRequest, visitor: Visitor, show: parts.Show) -> HttpResponse:
    if request.method != "POST":
        raise Http404
    if request.POST.get("do") == "invite":
        return await _invite(request, visitor, show)
    found = await _invitation(visitor, request.POST.get("invitation", ""))
    if request.POST.get("do") == "withdraw":
        gone = await invitations.withdraw(tenant=visitor.tenant, id=found.pk, by=visitor.actor)
        messages.success(request, f"The invitation of {found.email} is {'withdrawn' if gone else 'accepted already'}.")
        return redirect(console_address("team", tenant=visitor.tenant.slug))
    return await _sent(request, visitor, show, email=found.email, role=found.role)


async def _invitation(visitor: Visitor, number: str) -> Invitation:
    if not (number.isascii() and number.isdigit() and len(number) < 19):
        raise Http404
    mine = Invitation.async_objects.filter(tenant=visitor.tenant, pk=int(number), accepted_at=None)
    if (found := await mine.afirst()) is None:
        raise Http404
    return found


async def _invite(request: PageRequest, visitor: Visitor, show: parts.Show) -> HttpResponse:
    email, role = request.POST.get("email", "").strip(), request.POST.get("role", "")
    member = Membership.async_objects.filter(tenant=visitor.tenant, user__email__iexact=email)
    if email and "\0" not in email and await member.aexists():
        wrong = {"email": "This person is a member already."}
        return await show(status=422, form={"email": email, "role": role}, wrong=wrong)
    return await _sent(request, visitor, show, email=email, role=role)


async def _sent(request: PageRequest, visitor: Visitor, show: parts.Show, *, email: str, role: str) -> HttpResponse:
    try:
        made = await invitations.invite(
            tenant=visitor.tenant, email=email, role=role, by=visitor.actor, home=address_of(request)
        )
    except StepRefused as error:
        wrong = {fault["field"]: fault["message"] for fault in error.errors}
        return await show(status=422, form={"email": email, "role": role}, wrong=wrong)
    except TooManyRequests as error:
        return await show(status=429, form={"email": email, "role": role}, wrong={"email": error.detail})
    sent = "The link was sent by e-mail." if settings.EMAIL_URL else "No e-mail is sent: copy the link below."
    messages.success(request, f"{made.email} is invited as {made.role}. {sent}")
    return redirect(console_address("team", tenant=visitor.tenant.slug))


parts.register(
    parts.PagePart(
        page=parts.TEAM,
        name="invitations",
        order=10,
        template="payments/billing/_invitations.html",
        context=_context,
        verbs=frozenset({"invite", "resend", "withdraw"}),
        act=_act,
    )
)
