"""A tenant's accounts at processors: add, list, switch. What the kinds do with them is in payments/processors/."""

from decimal import Decimal, InvalidOperation
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import validate_slug
from django_async_backend.db.transaction import async_atomic

from payments.errors import PaymentError
from payments.models import Processor
from registry import audit
from registry.http_client import Address, BadAddress
from registry.models import Tenant


class Refused(PaymentError):
    """The processor cannot be added that way."""


async def add(
    *,
    tenant: Tenant,
    name: str,
    kind: str,
    actor: str,
    url: str = "",
    fee: Decimal | str = "0",
    options: dict[str, Any] | None = None,
) -> Processor:
    """A new processor of `tenant`. Raises Refused (422) with a sentence for a bad name, kind, address or fee."""
    check_name(name)
    check_kind(kind)
    check_url(kind, url)
    processor = Processor(tenant=tenant, name=name, kind=kind, url=url, fee=check_fee(fee), options=options or {})
    async with async_atomic():
        if await Processor.async_objects.filter(tenant=tenant, name=name).aexists():
            raise Refused(f"{tenant.slug} has a processor named {name} already")
        await processor.async_save()
        await _record("processor.add", processor, actor, kind=kind, url=url, fee=str(processor.fee))
    return processor


async def switch(*, tenant: Tenant, name: str, enabled: bool, actor: str) -> bool:
    """Let payments be sent there, or not. False when it was so before. Raises Refused for an unknown name."""
    async with async_atomic():
        mine = Processor.async_objects.filter(tenant=tenant, name=name)
        moved = await mine.filter(enabled=not enabled).aupdate(enabled=enabled)
        processor = await mine.afirst()
        if processor is None:
            raise Refused(f"{tenant.slug} has no processor named {name}")
        if moved:
            await _record("processor.enable" if enabled else "processor.disable", processor, actor)
    return bool(moved)


# -- What is acceptable --------------------------------------------------------------------------------


def check_name(name: str) -> None:
    try:
        validate_slug(name)
    except ValidationError:
        raise Refused(f"a name has letters, digits, hyphens and underscores, got {name!r}") from None
    if len(name) > 63:
        raise Refused("a name has at most 63 characters")


def check_kind(kind: str) -> None:
    from payments.processors import KINDS  # here: a kind may import a client that is slow to load

    if kind not in KINDS:
        raise Refused(f"there is no kind {kind!r}; there are: {', '.join(sorted(KINDS))}")


def check_url(kind: str, url: str) -> None:
    """Kind http wants an address; names without a dot are fine, they are usual on private networks."""
    if not url:
        if kind == "http":
            raise Refused("kind http wants a URL, such as http://127.0.0.1:8001")
        return
    try:
        Address.parse(url)
    except BadAddress as error:
        raise Refused(f"not an http address: {error}") from None
    if len(url) > 500:
        raise Refused("not an http address: it has more than 500 characters")


def check_fee(fee: Decimal | str) -> Decimal:
    """A share of the amount: at least 0, below 1, at most six decimals."""
    try:
        share = Decimal(fee)
        fits = 0 <= share < 1 and share == round(share, 6)
    except InvalidOperation:
        fits = False
    if not fits:
        raise Refused(f"a fee is a share of the amount from 0 to below 1, such as 0.05, got {fee}")
    return share


async def _record(action: str, processor: Processor, actor: str, **detail: str) -> None:
    target = f"processor {processor.name}"
    await audit.record(actor=actor, action=action, target=target, tenant_id=processor.tenant_id, detail=detail)
