"""A tenant's accounts at processors: add, enable, disable, change their secrets. The kinds are in payments/processors/."""

from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_slug
from django_async_backend.db.transaction import async_atomic

from payments.errors import PaymentError
from payments.models import Processor
from registry.data import database
from registry.data.cache import Cached
from registry.data.loop import sync_twin
from registry.errors import Unavailable
from registry.http.client import Address, BadAddress
from registry.models import Tenant
from registry.tenants import audit
from registry.tenants.encryption import Sealed, seal, unseal

if TYPE_CHECKING:
    from payments.processors.base import Account

SQL = database.statements(Path(__file__).parent / "sql" / "accounts.sql")
LIVE_KEYS = ("sk_live_", "rk_live_")
TEST_KEYS = ("sk_test_", "rk_test_")
SECRET_OPTIONS = frozenset({"secretKey", "webhookSecret", "webhookSecrets"})  # encrypted, never stored in `options`
SECRETS_KEPT = 3  # webhook secrets: the newest, and those before it


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
    """Add a processor; the secrets among the options are encrypted. Raises Refused (422) for a bad name, kind, URL, fee or key."""
    check_name(name)
    check_kind(kind)
    check_url(kind, url)
    public, secrets = split_options(options or {})
    check_secrets(kind, tenant, secrets, url=url)
    processor = Processor(tenant=tenant, name=name, kind=kind, url=url, fee=check_fee(fee), options=public)
    async with async_atomic():
        if await Processor.async_objects.filter(tenant=tenant, name=name).aexists():
            raise Refused(f"{tenant.slug} has a processor named {name} already")
        await processor.async_save()
        if secrets:
            processor.secrets = sealed(processor, secrets)
            await Processor.async_objects.filter(pk=processor.pk).aupdate(secrets=processor.secrets)
        await _record("processor.add", processor, actor, kind=kind, url=url, fee=str(processor.fee))
    return processor


async def switch(*, tenant: Tenant, name: str, enabled: bool, actor: str) -> bool:
    """Enable or disable a processor. False if nothing changes. Raises Refused (422) for an unknown name."""
    async with async_atomic():
        mine = Processor.async_objects.filter(tenant=tenant, name=name)
        moved = await mine.filter(enabled=not enabled).aupdate(enabled=enabled)
        processor = await mine.afirst()
        if processor is None:
            raise Refused(f"{tenant.slug} has no processor named {name}")
        if moved:
            await _record("processor.enable" if enabled else "processor.disable", processor, actor)
    return bool(moved)


async def change_secrets(
    *, tenant: Tenant, name: str, options: dict[str, Any], actor: str, any_account: bool = False
) -> Processor:
    """Replace a processor's keys. A new webhook secret is valid beside the ones before it, until all senders use it.

    Raises Refused (422) for an unknown name or an invalid key, and, unless `any_account`, for a secret key of another account
    while payments are unsettled there.
    """
    others, given = split_options(options)
    if others or not given:
        raise Refused(f"only {', '.join(sorted(SECRET_OPTIONS))} are secrets")
    mine = Processor.async_objects.filter(tenant=tenant, name=name)
    if (processor := await mine.afirst()) is not None and not any_account:
        await _must_keep_account(processor, tenant, given)
    async with async_atomic():
        processor = await mine.select_for_update().afirst()
        if processor is None:
            raise Refused(f"{tenant.slug} has no processor named {name}")
        secrets = renewed(processor, given)
        check_secrets(processor.kind, tenant, secrets, url=processor.url)
        await mine.aupdate(secrets=sealed(processor, secrets))
        await _record("processor.secrets", processor, actor, changed=", ".join(sorted(given)))
    return processor


# -- For intake ------------------------------------------------------------------------------------------


async def has_processor(tenant_id: int, name: str) -> bool:
    """Whether the tenant has an enabled processor of that name. Cached: a switch takes effect within a second.

    While the database is away or slow, the last known answer counts; without one the answer is yes: the payment is accepted, and
    waits until there is a processor of that name.
    """
    try:
        return name in await _names.get(tenant_id)
    except Unavailable:
        return True


async def _load_names(tenant_id: int) -> frozenset[str]:
    return frozenset(name for (name,) in await database.fetch(SQL["names"], {"tenant": tenant_id}))


_names = Cached(_load_names, while_away=True, patient=False)


# -- Unsettled payments ---------------------------------------------------------------------------------


async def unsettled_at(processor: Processor) -> int:
    """The number of payments that are processing, uncertain or require an action there: only this account can look them up."""
    asked = {"tenant": processor.tenant_id, "processor": processor.pk}
    return (await database.fetch(SQL["unsettled"], asked, prepare=False))[0][0]


unsettled_at_sync = sync_twin(unsettled_at)


def another_key(processor: Processor, given: dict[str, Any]) -> bool:
    """Whether `given` has a secret key that differs from the stored one."""
    try:
        return "secretKey" in given and given["secretKey"] != opened(processor).get("secretKey")
    except Sealed:
        return True


def renewed(processor: Processor, given: dict[str, Any]) -> dict[str, Any]:
    """The stored secrets with those `given`. If they cannot be decrypted any more, all must be given. Raises Refused."""
    try:
        return merged(opened(processor), given)
    except Sealed:
        if missing := [name for name in ("secretKey", "webhookSecrets") if name not in given]:
            raise Refused(
                "the stored secrets cannot be decrypted (SECRET_KEY was changed): give secretKey and webhookSecret together; "
                f"there is no {' and no '.join(missing)}"
            ) from None
        return merged({}, given)


def must_stay(count: int, where: str) -> str:
    """Why a processor's URL or key cannot change while payments are unsettled there."""
    waiting = "1 payment is" if count == 1 else f"{count} payments are"
    return f"{waiting} under way or in doubt here, and must be looked up {where}. "


async def _must_keep_account(processor: Processor, tenant: Tenant, given: dict[str, Any]) -> None:
    """Raises Refused for a key of another account: it does not know these payments, so they would be sent again."""
    if not another_key(processor, given) or not (count := await unsettled_at(processor)):
        return
    await database.release()  # the processor may take its time
    check_secrets(processor.kind, tenant, renewed(processor, given), url=processor.url)
    if not await _same_owner(processor, tenant, given):
        raise Refused(
            f"{must_stay(count, 'with a key of the same account')}The processor does not say that this is one. "
            "Disable this processor and add a new one with the other account's key."
        )


async def _same_owner(processor: Processor, tenant: Tenant, given: dict[str, Any]) -> bool:
    from payments.processors import KINDS  # here: a kind may import a client that is slow to load
    from payments.processors.base import HasKeys, Unanswered

    kind = KINDS[processor.kind]
    if not issubclass(kind, HasKeys):
        return False
    try:
        async with kind() as asked:
            old, new = [
                await asked.whose(account_of(processor, tenant, sealed(processor, secrets)))
                for secrets in (opened(processor), given)
            ]
    except (Unanswered, Sealed):
        return False
    return old == new


def account_of(processor: Processor, tenant: Tenant, secrets: bytes | None) -> "Account":
    """The account as processors need it; `secrets` are encrypted."""
    from payments.processors.base import Account

    return Account(
        id=processor.pk,
        tenant_id=tenant.pk,
        name=processor.name,
        kind=processor.kind,
        url=processor.url,
        fee_ppm=0,
        options=processor.options if isinstance(processor.options, dict) else {},
        enabled=processor.enabled,
        endpoint=processor.endpoint,
        mode=tenant.mode,
        sealed=secrets,
    )


# -- Secrets -------------------------------------------------------------------------------------------


def split_options(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The public options, and the secrets: {"secretKey"?, "webhookSecrets"?: newest first}."""
    public = {name: value for name, value in options.items() if name not in SECRET_OPTIONS}
    secrets: dict[str, Any] = {}
    if "secretKey" in options:
        secrets["secretKey"] = options["secretKey"]
    several = options.get("webhookSecrets") or []
    if of_webhooks := [*_one(options.get("webhookSecret")), *(several if isinstance(several, list) else [several])]:
        secrets["webhookSecrets"] = of_webhooks
    return public, secrets


def _one(value: Any) -> list[Any]:
    return [value] if value else []


def merged(before: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Replace keys; put new webhook secrets before the stored ones."""
    kept = [one for one in before.get("webhookSecrets", []) if one not in given.get("webhookSecrets", [])]
    of_webhooks = [*given.get("webhookSecrets", []), *kept][:SECRETS_KEPT]
    return {**before, **given, **({"webhookSecrets": of_webhooks} if of_webhooks else {})}


def sealed(processor: Processor, secrets: dict[str, Any]) -> bytes:
    return seal(secrets, place=f"processor {processor.pk}")


def opened(processor: Processor) -> dict[str, Any]:
    """Raises registry.tenants.encryption.Sealed."""
    return unseal(processor.secrets, place=f"processor {processor.pk}")


# -- Checks --------------------------------------------------------------------------------------------


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


def check_secrets(kind: str, tenant: Tenant, secrets: dict[str, Any], *, url: str) -> None:
    """Raises Refused. Kind stripe needs a key of the tenant's mode; a live key only in production and for Stripe's own URL. A live
    tenant in production needs a kind that moves money. No message repeats a secret."""
    live_in_production = settings.PRODUCTION and tenant.mode == Tenant.Mode.LIVE
    if kind == "sandbox" and live_in_production:
        raise Refused("kind sandbox moves no money: a live tenant wants kind http or stripe")
    if kind != "stripe":
        if secrets:
            raise Refused(f"kind {kind} has no secrets; only kind stripe has")
        return
    key = secrets.get("secretKey")
    if not isinstance(key, str) or not key.startswith((*LIVE_KEYS, *TEST_KEYS)) or not key.isascii():
        raise Refused("kind stripe wants --option secretKey=sk_test_…, the account's secret or restricted key")
    live = key.startswith(LIVE_KEYS)
    if live and not live_in_production:
        raise Refused("a live key is for live tenants in production only: nothing else may move real money")
    if live and url:
        raise Refused(
            "a live key is for Stripe itself: leave the URL empty, because the server there would receive the key"
        )
    if not live and live_in_production:
        raise Refused("a test key books nothing: a live tenant wants a live one")
    of_webhooks = secrets.get("webhookSecrets", [])
    if not all(isinstance(one, str) and one.startswith("whsec_") for one in of_webhooks):
        raise Refused("a webhook secret begins with whsec_")


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
