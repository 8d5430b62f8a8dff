"""Keys and links to tenants: who a request acts for, with which scopes, how often. What they may then see is the apps' matter."""

import base64
import hashlib
import hmac
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from django.conf import settings
from django.db.models.functions import Now
from django.http import HttpRequest
from limits import RateLimitItem, parse

from registry import telemetry
from registry.data import database, rates, reach
from registry.data.cache import Cached
from registry.data.loop import PerLoop, Tasks, sync_twin
from registry.errors import Forbidden, Invalid, TooManyRequests, Unauthorized, Unavailable
from registry.models import PATIENCE, ApiKey, Tenant

SQL = database.statements(Path(__file__).parent / "sql" / "access.sql")
TOKEN_LENGTH = 40  # characters of a payment link's token at most


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a request acts for."""

    tenant_id: int
    slug: str
    currency: str
    mode: str
    max_amount: int | None  # minor units
    scopes: frozenset[str]
    key: str  # prefix; "" for the open tenant
    rate_limit: RateLimitItem | None = None
    blocked: str = ""  # why its payments are refused where it is live
    inline: frozenset[str] = frozenset()  # operations that the web process carries out itself: registry.models.Flag

    def require(self, scope: str) -> None:
        """Raises Forbidden (403) unless the key has `scope`; `admin` includes all."""
        if scope not in self.scopes and "admin" not in self.scopes:
            raise Forbidden(f"this key has no {scope} scope")


# -- Recognising a caller --------------------------------------------------------------------------


async def _load_key(token: str) -> Principal | None:
    return await _load("key", prefix=token.split("_", 2)[1], digest=hashlib.sha256(token.encode()).digest())


async def _load_open(slug: str) -> Principal | None:
    return await _load("open", slug=slug)


async def _load(statement: str, **params: str | bytes) -> Principal | None:
    rows = await database.fetch(SQL[statement], params)
    if not rows:
        return None
    tenant_id, slug, currency, mode, max_amount, scopes, prefix, rate_limit, status, note_use, blocked, inline = rows[0]
    if note_use:
        _note_use(prefix)
    if status != Tenant.Status.ACTIVE:
        return None
    return Principal(
        tenant_id=tenant_id,
        slug=slug,
        currency=currency,
        mode=mode,
        max_amount=max_amount,
        scopes=frozenset(msgspec.json.decode(scopes)),
        key=prefix,
        rate_limit=parse(rate_limit) if rate_limit else None,
        blocked=blocked,
        inline=frozenset(inline),
    )


_notes: PerLoop[Tasks] = PerLoop(Tasks, close=Tasks.close)


def _note_use(prefix: str) -> None:
    """Beside the request: a key is as good where its use cannot be written down."""

    async def note() -> None:
        with suppress(Unavailable):
            await reach.attempt(lambda: database.fetch(SQL["used"], {"prefix": prefix}))

    _notes.get().start(note())


# A revocation works within a second.
_keys, _open = Cached(_load_key, while_away=True, hashed=True), Cached(_load_open, while_away=True)


async def authenticate(authorization: str | None, *, keyless: bool = False) -> Principal:
    """The principal of an `Authorization: Bearer KEY` header. Without a header: the open tenant, where `keyless` allows it.

    Only `/payments*` and their pages allow it (contract section 7).

    Raises Unauthorized (401) for keys that are unknown, revoked, expired or of a tenant that is not active.
    """
    if not authorization:
        if keyless and settings.REGISTRY_OPEN_TENANT and (principal := await _open.get(settings.REGISTRY_OPEN_TENANT)):
            telemetry.TENANT.set(principal.slug)
            return principal
        raise Unauthorized
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token.startswith("rk_") or token.count("_") < 2 or len(token) > 200:
        raise Unauthorized
    principal = await _keys.get(token)
    if principal is None:
        raise Unauthorized
    telemetry.TENANT.set(principal.slug)
    return principal


async def authorize(request: HttpRequest, scope: str, *, keyless: bool = False) -> tuple[Principal, dict[str, str]]:
    """Who asks, with `scope` and within its rate; and the RateLimit-* headers to send. `keyless` as in `authenticate`."""
    principal = await identify(request, scope, keyless=keyless)
    return principal, await limit_rate(principal) if principal.rate_limit else {}


async def identify(request: HttpRequest, scope: str, *, keyless: bool = False) -> Principal:
    """Who asks, with `scope`. Whoever calls this counts what it costs, by `limit_rate`."""
    principal = await authenticate(request.META.get("HTTP_AUTHORIZATION"), keyless=keyless)
    principal.require(scope)
    if not principal.key:
        refuse_foreign_pages(request)
    return principal


def refuse_foreign_pages(request: HttpRequest) -> None:
    """A page of another site that a visitor has open must not act as the open tenant: no key stands in its way."""
    host = request.get_host()  # DisallowedHost (400) for a name that is not ours
    origin = request.META.get("HTTP_ORIGIN")
    if origin and urlsplit(origin).netloc != host:
        raise Forbidden("requests without a key must not come from another site's page")


# -- How often (requirement A8) -----------------------------------------------------------------------


async def limit_rate(principal: Principal, cost: int = 1) -> dict[str, str]:
    """Count `cost` against the key's limit; the RateLimit-* headers. Raises TooManyRequests (429) with Retry-After, and
    Invalid (422) for items that are more than the limit lets pass at any time: of those nothing is counted.

    Without Redis nothing is limited: a payment refused is worse than one too many.
    """
    item = principal.rate_limit
    if item is None:
        return {}
    if not item.amount:
        raise Forbidden(f"this key's rate limit is {item}: it lets nothing pass")
    if cost > item.amount:
        message = f"are {cost}; this key's rate limit is {item}, so at most {item.amount} may come at once"
        raise Invalid(f"items {message}", errors=[{"field": "items", "message": message}])
    counted = await rates.count(item, "key", principal.key, cost=cost)
    if counted is None:
        return {}
    allowed, window = counted
    reset = max(1, round(window.reset_time - time.time()))
    headers = {
        "RateLimit-Limit": str(item.amount),
        "RateLimit-Remaining": str(max(0, window.remaining)),
        "RateLimit-Reset": str(reset),
    }
    if not allowed:
        # At `reset` there is room for one; for several there certainly is when all of the window has passed.
        after = reset if cost == 1 else item.get_expiry()
        raise TooManyRequests(f"at most {item}", headers={**headers, "Retry-After": str(after)})
    return headers


def rate_of(text: str) -> RateLimitItem:
    """The rate that a text such as 100/second means. Raises ValueError, also for one that would let nothing pass."""
    item = parse(text)
    if not item.amount:
        raise ValueError(f"{text!r} would let nothing pass")
    return item


# -- Tenants and keys ------------------------------------------------------------------------------------


async def create_tenant(
    *,
    slug: str,
    name: str = "",
    currency: str = "BRL",
    open: bool = False,
    mode: str = Tenant.Mode.SANDBOX,
    patience: int = PATIENCE,
) -> Tenant:
    """A new tenant. Raises ValidationError for a bad slug, one that is taken, or a patience out of bounds."""
    tenant = Tenant(slug=slug, name=name or slug, currency=currency, open=open, mode=mode, patience=patience)
    tenant.clean_fields()
    await tenant.async_save()
    return tenant


def _new_key() -> tuple[str, str]:
    prefix, secret = secrets.token_hex(6), base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    return prefix, f"rk_{prefix}_{secret}"


async def tenant_ids() -> list[int]:
    """All tenants."""
    return [tenant_id for (tenant_id,) in await database.fetch(SQL["tenants"])]


async def issue_key(
    *,
    tenant: Tenant,
    scopes: list[str],
    name: str = "",
    expires_at: datetime | None = None,
    rate_limit: str = "",
) -> tuple[ApiKey, str]:
    """A new key and its plain text `rk_PREFIX_SECRET`, which is shown once and never kept."""
    if rate_limit:
        rate_of(rate_limit)  # ValueError names what it wanted
    prefix, plain = _new_key()
    key = ApiKey(
        tenant=tenant,
        prefix=prefix,
        digest=hashlib.sha256(plain.encode()).digest(),
        name=name,
        scopes=scopes,
        expires_at=expires_at,
        rate_limit=rate_limit,
    )
    await key.async_save()
    return key, plain


async def revoke_key(*, prefix: str) -> bool:
    """End a key; every process refuses it within a second. False when it was revoked before or never was."""
    return bool(await ApiKey.async_objects.filter(prefix=prefix, revoked_at=None).aupdate(revoked_at=Now()))


create_tenant_sync = sync_twin(create_tenant)
issue_key_sync = sync_twin(issue_key)
revoke_key_sync = sync_twin(revoke_key)


# -- Links that anybody may follow ---------------------------------------------------------------------------


@cache
def _link_key(secret_key: str) -> bytes:
    return hashlib.sha256(b"payment link" + secret_key.encode()).digest()


def _signed(secret_key: str, tenant_id: int, correlation_id: UUID) -> str:
    subject = b"%d:%b" % (tenant_id, correlation_id.bytes)
    mac = hashlib.blake2b(subject, key=_link_key(secret_key), digest_size=15).digest()  # keyed: a MAC (RFC 7693)
    return f"{tenant_id:x}.{base64.urlsafe_b64encode(mac).decode()}"


def live_token(tenant_id: int, correlation_id: UUID) -> str:
    """The signature in a payment's public link. It shows this payment and nothing else."""
    return _signed(settings.SECRET_KEY, tenant_id, correlation_id)


def live_subject(correlation_id: UUID, token: str) -> int | None:
    """The tenant whose payment `token` shows; None for a token that is not ours or of another payment.

    A token that was signed with one of SECRET_KEY_FALLBACKS is valid as well.
    """
    if len(token) > TOKEN_LENGTH:
        return None
    try:
        tenant_id = int(token.partition(".")[0], 16)
    except ValueError:
        return None
    for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        if hmac.compare_digest(_signed(key, tenant_id, correlation_id).encode(), token.encode()):
            return tenant_id
    return None
