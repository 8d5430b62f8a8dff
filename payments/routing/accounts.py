"""A tenant's accounts at processors: add, enable, disable, change their secrets. The kinds are in payments/processors/."""

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django_async_backend.db.transaction import async_atomic

from payments.models import Processor
from payments.routing.checks import Refused, check_fee, check_kind, check_name, check_secrets, check_url
from registry.data import database
from registry.data.cache import Cached
from registry.data.loop import sync_twin
from registry.errors import Unavailable
from registry.models import Tenant
from registry.tenants import audit
from registry.tenants.encryption import Sealed, seal, unseal

if TYPE_CHECKING:
    from payments.processors.base import Account

SQL = database.statements(Path(__file__).parent / "sql" / "accounts.sql")
SECRET_OPTIONS = frozenset({"secretKey", "webhookSecret", "webhookSecrets"})  # encrypted, never stored in `options`
PROCESSORS_AT_MOST = 50  # of a tenant: workers ask each address for its health every few seconds
SECRETS_KEPT = 3  # webhook secrets: the newest, and those before it


async def add(
    *,
    tenant: Tenant,
    name: str,
    kind: str,
    actor: str,
    url: str = "",
    fee: Decimal | str = "0",
    options: dict[str, Any] | None = None,
    public_only: bool = False,
) -> Processor:
    """Add a processor; the secrets among the options are encrypted. Raises Refused (422) for a bad name, kind, URL, fee or key.

    `public_only`: its address must be on the public internet, at each connection. Set where a merchant enters it: the
    service would otherwise call its own network for them.
    """
    check_name(name)
    check_kind(kind)
    check_url(kind, url)
    public, secrets = split_options(options or {})
    check_secrets(kind, tenant, secrets, url=url)
    processor = Processor(
        tenant=tenant, name=name, kind=kind, url=url, fee=check_fee(fee), options=public, public_only=public_only
    )
    async with async_atomic():
        names = {one async for one in Processor.async_objects.filter(tenant=tenant).values_list("name", flat=True)}
        if name in names:
            raise Refused(f"{tenant.slug} has a processor named {name} already")
        if public_only and len(names) >= PROCESSORS_AT_MOST:
            more = "" if PROCESSORS_AT_MOST == 1 else "s"
            raise Refused(
                f"a tenant has at most {PROCESSORS_AT_MOST} processor{more}; an operator of the service adds more"
            )
        await processor.async_save()
        if secrets:
            processor.secrets = sealed(processor, secrets)
            await Processor.async_objects.filter(pk=processor.pk).aupdate(secrets=processor.secrets)
        await _record("processor.add", processor, actor, kind=kind, url=url, fee=str(processor.fee))
    return processor


async def change(
    *,
    tenant: Tenant,
    name: str,
    actor: str,
    fee: Decimal | str,
    url: str | None = None,
    options: dict[str, Any],
    public_only: bool = False,
) -> list[str]:
    """Change a processor's fee, URL and options; an option that is None is removed. Returns what has changed.

    `public_only` as in `add`; it is about another URL only.
    Raises Refused (422) for an unknown name or a bad value, and for another URL while payments are unsettled there.
    """
    share = check_fee(fee)
    async with async_atomic():
        mine = Processor.async_objects.filter(tenant=tenant, name=name)
        processor = await mine.select_for_update().afirst()
        if processor is None:
            raise Refused(f"{tenant.slug} has no processor named {name}")
        before = {"fee": processor.fee, "url": processor.url, "options": _options_of(processor)}
        address = processor.url if url is None else url
        after = {
            "fee": share,
            "url": address,
            "options": {key: value for key, value in {**before["options"], **options}.items() if value is not None},
        }
        if address != processor.url:
            check_url(processor.kind, address)
            if count := await unsettled_at(processor):
                raise Refused(
                    f"{must_stay(count, 'at this address')}Disable this processor and add a new one with the other address."
                )
        if changed := [key for key in before if before[key] != after[key]]:
            moved = {"public_only": public_only} if "url" in changed else {}
            await mine.aupdate(**after, **moved)
            detail = {key: f"{before[key]} → {after[key]}" for key in changed}
            await _record("processor.change", processor, actor, **detail)
    return changed


async def switch(*, tenant: Tenant, name: str, enabled: bool, actor: str) -> bool:
    """Enable or disable a processor. False if nothing changes. Raises Refused (422) for an unknown name, and for one that may
    not be enabled (any more)."""
    async with async_atomic():
        mine = Processor.async_objects.filter(tenant=tenant, name=name)
        moved = await mine.filter(enabled=not enabled).aupdate(enabled=enabled)
        processor = await mine.afirst()
        if processor is None:
            raise Refused(f"{tenant.slug} has no processor named {name}")
        if moved and enabled:
            check_enabled(processor, tenant)
        if moved:
            await _record("processor.enable" if enabled else "processor.disable", processor, actor)
    return bool(moved)


def check_enabled(processor: Processor, tenant: Tenant) -> None:
    """Raises Refused for a processor that may not be added to this tenant either, such as a test processor after going live."""
    try:
        secrets = opened(processor)
    except Sealed as error:
        raise Refused(error.detail) from None
    check_secrets(processor.kind, tenant, secrets, url=processor.url)


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
        options=_options_of(processor),
        enabled=processor.enabled,
        endpoint=processor.endpoint,
        mode=tenant.mode,
        sealed=secrets,
        public_only=processor.public_only,
    )


def _options_of(processor: Processor) -> dict[str, Any]:
    """An administrator may have typed anything."""
    return processor.options if isinstance(processor.options, dict) else {}


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


async def _record(action: str, processor: Processor, actor: str, **detail: str) -> None:
    target = f"processor {processor.name}"
    await audit.record(actor=actor, action=action, target=target, tenant_id=processor.tenant_id, detail=detail)
