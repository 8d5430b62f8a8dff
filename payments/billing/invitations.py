"""Invitations to join a tenant: a signed link for one e-mail address, valid once and for two weeks."""

import asyncio
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.core import signing
from django.db import IntegrityError
from django_async_backend.db.transaction import async_atomic

from payments.billing import limits
from payments.billing.errors import InvitationInvalid, StepRefused
from payments.billing.signup import check_person
from payments.models import Invitation
from payments.models.billing import INVITED_FOR
from registry.data import clock
from registry.models import Membership, Tenant
from registry.tenants import audit, mail

SALT = "invitation"
AT_MOST = 50  # open invitations of a tenant


def link(invitation: Invitation) -> str:
    """The path of the link. Whoever has it may accept, so only the people who invited see it."""
    return f"/invitation/{signing.dumps([invitation.tenant_id, invitation.pk, _made(invitation)], salt=SALT)}"


def _made(invitation: Invitation) -> int:
    """When it was made or renewed, in microseconds: a renewed one has another link, and the one before ends."""
    return round(invitation.created_at.timestamp() * 1_000_000)


def is_expired(invitation: Invitation) -> bool:
    return clock.now() - invitation.created_at >= INVITED_FOR


async def invite(*, tenant: Tenant, email: str, role: str, by: str, home: str) -> Invitation:
    """Invite an address. A second invitation changes the role and renews the link; the one before ends.

    Raises StepRefused (422), TooManyRequests (429) for too many e-mails on one day.
    """
    email = email.strip().lower()
    if wrong := _wrong(email, role):
        raise StepRefused(errors=[{"field": field, "message": message} for field, message in wrong.items()])
    if settings.EMAIL_URL:  # without a mail server no e-mail is sent
        await limits.count_by(str(tenant.pk), limits.EMAILS, "invitation by e-mail")
    now = clock.now()
    mine = Invitation.async_objects.filter(tenant=tenant)
    async with async_atomic():
        if await mine.filter(accepted_at=None).exclude(email=email).acount() >= AT_MOST:
            raise StepRefused(errors=[{"field": "email", "message": f"At most {AT_MOST} invitations may be open."}])
        found, fresh = await mine.aupdate_or_create(
            email=email,
            defaults={"tenant": tenant, "role": role, "invited_by": by[:150], "created_at": now, "accepted_at": None},
        )
        target = f"invitation of {email}"
        await audit.record(
            actor=by, action="invitation.add" if fresh else "invitation.renew", target=target, tenant_id=tenant.pk,
            detail={"role": role},
        )  # fmt: skip
    await mail.send(
        [email],
        f"{tenant.name} invites you",
        f"{by} invites you to {tenant.name} as {role}. This link is yours for {INVITED_FOR.days} days:\n\n{home}{link(found)}",
    )
    return found


def _wrong(email: str, role: str) -> dict[str, str]:
    wrong = {} if mail.is_address(email) else {"email": mail.NO_ADDRESS}
    if role not in Membership.Role.values:
        wrong["role"] = f"A role is one of {', '.join(Membership.Role.values)}."
    return wrong


async def withdraw(*, tenant: Tenant, id: int, by: str) -> bool:
    """Withdraw an open invitation. False if it was accepted already, or belongs to another tenant."""
    async with async_atomic():
        gone, _ = await Invitation.async_objects.filter(tenant=tenant, pk=id, accepted_at=None).adelete()
        if gone:
            await audit.record(actor=by, action="invitation.withdraw", target=f"invitation {id}", tenant_id=tenant.pk)
    return bool(gone)


async def of_tenant(tenant_id: int) -> list[Invitation]:
    return [one async for one in Invitation.async_objects.filter(tenant_id=tenant_id).order_by("id")]


async def read(token: str) -> Invitation:
    """The open invitation behind a link. Raises InvitationInvalid (404)."""
    try:
        tenant_id, pk, made = signing.loads(token, salt=SALT)  # `is_expired` looks at its age
    except (signing.BadSignature, ValueError, TypeError):
        raise InvitationInvalid from None
    found = await Invitation.async_objects.select_related("tenant").filter(tenant_id=tenant_id, pk=pk).afirst()
    if (
        found is None
        or _made(found) != made
        or is_expired(found)
        or found.accepted_at
        or found.tenant.status != Tenant.Status.ACTIVE
    ):
        raise InvitationInvalid
    return found


async def accept(*, invitation: Invitation, user: Any | None, password: str = "") -> Any:
    """Accept: make the person a member; with `password`, create the person first. Raises InvitationInvalid (404), StepRefused (422)."""
    if user is None:
        if wrong := check_person(invitation.email, password):
            raise StepRefused(errors=[{"field": f, "message": m} for f, m in wrong.items()])
        digest = await asyncio.to_thread(make_password, password)
        user = get_user_model()(username=invitation.email, email=invitation.email, password=digest)
    elif user.email.lower() != invitation.email:
        raise StepRefused(f"This invitation is for {invitation.email}. Sign out first, if that is you.")
    try:
        async with async_atomic():
            open_one = Invitation.async_objects.filter(
                tenant_id=invitation.tenant_id, pk=invitation.pk, accepted_at=None
            )
            if not await open_one.aupdate(accepted_at=clock.now()):
                raise InvitationInvalid
            if user.pk is None:
                await user.async_save()
            await Membership.async_objects.aget_or_create(
                tenant_id=invitation.tenant_id, user=user, defaults={"role": invitation.role}
            )
            await audit.record(
                actor=user.get_username(),
                action="invitation.accept",
                target=f"invitation of {invitation.email}",
                tenant_id=invitation.tenant_id,
                detail={"role": invitation.role},
            )
    except IntegrityError:
        message = "There is an account with this address. Sign in first, then follow the link again."
        raise StepRefused(errors=[{"field": "password", "message": message}]) from None
    return user
