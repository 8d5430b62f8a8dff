"""Authentication and authorization by API keys; tenants and keys are created here. See limits.py for rate limits."""

import base64
import hashlib
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from django.conf import settings
from django.db.models.functions import Now
from django.http import HttpRequest
from limits import RateLimitItem, parse

from registry.data import database, db_breaker
from registry.data.cache import Cached
from registry.data.loop import PerLoop, Tasks
from registry.edge import heads
from registry.errors import Forbidden, Unauthorized, Unavailable
from registry.models import PATIENCE, ApiKey, Tenant
from registry.telemetry import context
from registry.tenants.limits import count_requests, parse_limit

SQL = database.statements(Path(__file__).parent / "sql" / "access.sql")


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller of a request: its tenant, and the rights of its key."""

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

    def allows(self, scope: str) -> bool:
        """Whether the key has `scope`; `admin` includes all."""
        return scope in self.scopes or "admin" in self.scopes

    def require(self, scope: str) -> None:
        """Raises Forbidden (403) unless the key has `scope`."""
        if not self.allows(scope):
            raise Forbidden(f"this key has no {scope} scope")


# -- Authentication --------------------------------------------------------------------------


async def _load_key(token: str) -> Principal | None:
    return await _load("key", prefix=token.split("_", 2)[1], digest=hashlib.sha256(token.encode()).digest())


async def _load_open(slug: str) -> Principal | None:
    return await _load("open", slug=slug)


async def _load(statement: str, **params: str | bytes) -> Principal | None:
    rows = await database.fetch(SQL[statement], params)
    if not rows:
        return None
    tenant_id, slug, currency, mode, max_amount, scopes, prefix, rate_limit, status, record_use, blocked, inline = rows[
        0
    ]
    if record_use:
        _record_use(prefix)
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


_background: PerLoop[Tasks] = PerLoop(Tasks, close=Tasks.close)


def _record_use(prefix: str) -> None:
    """Record in the background when a key was used. The key stays valid when PostgreSQL cannot record it."""

    async def record() -> None:
        with suppress(Unavailable):
            await db_breaker.attempt(lambda: database.fetch(SQL["used"], {"prefix": prefix}))

    _background.get().start(record())


# Both caches renew within a second, so a revocation takes effect within a second.
_keys, _open = Cached(_load_key, while_away=True, hashed=True), Cached(_load_open, while_away=True)


async def authenticate(authorization: str | None, *, keyless: bool = False) -> Principal:
    """Authenticate an `Authorization: Bearer KEY` header. Without a header: the open tenant, if `keyless`.

    Only `/payments*` and their pages are `keyless` (contract section 7). Raises Unauthorized (401) when the key is unknown,
    revoked or expired, or its tenant is not active.
    """
    if not authorization:
        if keyless and settings.REGISTRY_OPEN_TENANT and (principal := await _open.get(settings.REGISTRY_OPEN_TENANT)):
            context.TENANT.set(principal.slug)
            return principal
        raise Unauthorized
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token.startswith("rk_") or token.count("_") < 2 or len(token) > 200:
        raise Unauthorized
    principal = await _keys.get(token)
    if principal is None:
        raise Unauthorized
    context.TENANT.set(principal.slug)
    context.CALLER.set((principal.tenant_id, principal.key))
    return principal


async def require_key(scope: dict) -> None:
    """Authenticate the head of an ASGI request, before its body is read. Raises Unauthorized (401)."""
    await authenticate(heads.value_of(scope, b"authorization"))


async def require_key_or_open(scope: dict) -> None:
    """`require_key` for routes that are `keyless`."""
    await authenticate(heads.value_of(scope, b"authorization"), keyless=True)


async def authorize(request: HttpRequest, scope: str, *, keyless: bool = False) -> tuple[Principal, dict[str, str]]:
    """Authenticate a request, require `scope` and count it against the rate limit; also returns the RateLimit-* headers."""
    principal = await identify(request, scope, keyless=keyless)
    return principal, await count_requests(principal.rate_limit, principal.key)


async def identify(request: HttpRequest, scope: str, *, keyless: bool = False) -> Principal:
    """Authenticate a request and require `scope`. The caller counts the request's cost by `limits.count_requests`."""
    principal = await authenticate(heads.joined(request.scope, b"authorization"), keyless=keyless)  # type: ignore[attr-defined]
    principal.require(scope)
    if not principal.key:
        refuse_foreign_pages(request)
    return principal


def refuse_foreign_pages(request: HttpRequest) -> None:
    """Refuse a keyless request from another site's page (CSRF). Raises Forbidden (403)."""
    host = request.get_host()  # raises DisallowedHost (400) for an unknown host
    origin = request.META.get("HTTP_ORIGIN")
    if origin and urlsplit(origin).netloc != host:
        raise Forbidden("requests without a key must not come from another site's page")


# -- Creation of tenants and keys ------------------------------------------------------------------------------------


async def create_tenant(
    *,
    slug: str,
    name: str = "",
    currency: str = "BRL",
    open: bool = False,
    mode: str = Tenant.Mode.SANDBOX,
    patience: int = PATIENCE,
) -> Tenant:
    """Create a tenant. Raises ValidationError when the slug is invalid or taken, or `patience` is out of bounds."""
    tenant = Tenant(slug=slug, name=name or slug, currency=currency, open=open, mode=mode, patience=patience)
    tenant.clean_fields()
    await tenant.async_save()
    return tenant


def new_prefix() -> str:
    """A prefix that no key has."""
    return secrets.token_hex(6)


def _new_key(prefix: str) -> tuple[str, str]:
    secret = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    return prefix, f"rk_{prefix}_{secret}"


async def tenant_ids() -> list[int]:
    return [tenant_id for (tenant_id,) in await database.fetch(SQL["tenants"])]


def unsaved_key(
    *,
    tenant: Tenant,
    scopes: list[str],
    name: str = "",
    expires_at: datetime | None = None,
    rate_limit: str = "",
    prefix: str = "",
) -> tuple[ApiKey, str]:
    """A new key that is not saved yet, and its plain text `rk_PREFIX_SECRET`, which is never stored."""
    if rate_limit:
        parse_limit(rate_limit)  # raises ValueError
    prefix, plain = _new_key(prefix or new_prefix())
    key = ApiKey(
        tenant=tenant,
        prefix=prefix,
        digest=hashlib.sha256(plain.encode()).digest(),
        name=name,
        scopes=scopes,
        expires_at=expires_at,
        rate_limit=rate_limit,
    )
    return key, plain


async def issue_key(*, tenant: Tenant, scopes: list[str], **options: Any) -> tuple[ApiKey, str]:
    """Create a key; returns it and its plain text. Options as of `unsaved_key`."""
    key, plain = unsaved_key(tenant=tenant, scopes=scopes, **options)
    await key.async_save()
    return key, plain


async def revoke_key(*, tenant_id: int, prefix: str) -> bool:
    """Revoke a key of the tenant; every process refuses it within a second. False when it was revoked before or does not exist."""
    mine = ApiKey.async_objects.filter(tenant_id=tenant_id, prefix=prefix, revoked_at=None)
    return bool(await mine.aupdate(revoked_at=Now()))
