"""A forgotten password: a signed link by e-mail, valid once and for an hour (settings.PASSWORD_RESET_TIMEOUT)."""

import asyncio
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.contrib.auth.tokens import PasswordResetTokenGenerator
from django.db.models import Q
from django.urls import reverse
from django.utils.http import urlsafe_base64_decode, urlsafe_base64_encode
from django_async_backend.db.models.query import QuerySet as AsyncQuerySet
from django_async_backend.db.transaction import async_atomic

from payments.billing import limits
from payments.billing.signup import check_person
from registry.data import clock, database
from registry.data.loop import PerLoop, Tasks
from registry.errors import TooManyRequests
from registry.tenants import audit, mail

SUBJECT = "Your password at Registry"
TEXT = """Somebody, probably you, has forgotten the password of {name} at {where}.

This link sets a new one. It works once, for an hour:
{link}

If it was not you, do nothing: the password stays as it is.
"""

_sending: PerLoop[Tasks] = PerLoop(Tasks, close=Tasks.close)


async def ask(*, address: str, where: str) -> None:
    """Send a link to the account with this e-mail address, if there is one.

    It is sent in the background: the answer takes as long for an unknown address as for a known one, and says nothing of it.
    """
    _sending.get().start(_send(address, where))


async def _send(address: str, where: str) -> None:
    async with database.own_connection():
        await _send_to_each(address, where)


async def _send_to_each(address: str, where: str) -> None:
    users = AsyncQuerySet(get_user_model()).filter(
        Q(email__iexact=address) | Q(username__iexact=address), is_active=True
    )
    found = [user async for user in users.exclude(email="")]
    await database.release()  # the mail server may be slow
    for user in found:
        if not user.has_usable_password():
            continue
        try:
            await limits.count_by(str(user.pk), limits.EMAILS_OF_A_PERSON, "password")
        except TooManyRequests:
            continue
        link = f"{where}{reverse('password_new', args=[_id_of(user), _links.make_token(user)])}"
        await mail.send([user.email], SUBJECT, TEXT.format(name=user.get_username(), where=where, link=link))


def _id_of(user: Any) -> str:
    return urlsafe_base64_encode(str(user.pk).encode())


class _Links(PasswordResetTokenGenerator):
    """Django's, by the service's clock: one host sends the link, and another one may open it."""

    def _now(self) -> datetime:
        return clock.now().replace(tzinfo=None)


_links = _Links()


async def user_of(id: str, token: str) -> Any | None:
    """The user of a link; None if it is wrong, too old, or was used."""
    try:
        key = int(urlsafe_base64_decode(id))
    except (ValueError, OverflowError):
        return None
    user = await AsyncQuerySet(get_user_model()).filter(pk=key, is_active=True).afirst() if 0 < key < 2**31 else None
    return user if user is not None and _links.check_token(user, token) else None


def faults_of(user: Any, password: str) -> str:
    """Why the password cannot be taken; "" if it can."""
    return check_person(user.email or "nobody@example.com", password).get("password", "")


async def change(user: Any, password: str) -> bool:
    """Set the password: the links that were sent and the sessions of this user end with it. False if another was faster."""
    digest = await asyncio.to_thread(make_password, password)
    async with async_atomic():
        mine = AsyncQuerySet(get_user_model()).filter(pk=user.pk, password=user.password)
        changed = bool(await mine.aupdate(password=digest))
        if changed:
            await audit.record(actor=user.get_username(), action="password.reset", target=f"user {user.get_username()}")
    return changed
