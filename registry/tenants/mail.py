"""E-mail, if the service has a mail server (EMAIL_URL). Without one, the pages show the same information."""

import asyncio
import logging

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import send_mail
from django.core.validators import validate_email

from registry.models import Membership

log = logging.getLogger(__name__)

NO_ADDRESS = "This is not an e-mail address."
LONGEST = 150  # characters of an address: it is the user name, too


def is_address(text: str) -> bool:
    try:
        validate_email(text)
    except ValidationError:
        return False
    return len(text) <= LONGEST


async def send(addresses: list[str], subject: str, text: str) -> bool:
    """Send an e-mail. Returns whether the mail server accepted it; never raises, because nothing may depend on it."""
    if not settings.EMAIL_URL or not addresses:
        return False
    try:
        await asyncio.to_thread(send_mail, subject, text, None, addresses)
    except OSError as error:  # smtplib's errors are OSErrors
        log.warning("an e-mail was not sent", extra={"error": repr(error)})
        return False
    return True


async def send_to_owners(tenant_id: int, subject: str, text: str) -> bool:
    owners = Membership.async_objects.filter(tenant_id=tenant_id, role=Membership.Role.OWNER, user__is_active=True)
    addresses = [m.user.email async for m in owners.select_related("user") if m.user.email]
    return await send(addresses, subject, text)
