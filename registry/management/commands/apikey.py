"""`apikey create`, `apikey list`, `apikey revoke` and `apikey rotate`."""

import argparse
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils.dateparse import parse_date, parse_datetime

from registry.data import clock
from registry.management.base import AsyncCommand, actor, add_json, tenant_named
from registry.models import ApiKey
from registry.tenants import keys
from registry.tenants.limits import parse_limit


class Command(AsyncCommand):
    help = "Make, list, revoke and rotate API keys. A key's secret is shown once, when it is made."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="make a key for a tenant")
        create.add_argument("tenant")
        create.add_argument(
            "--scope", action="extend", nargs="+", choices=ApiKey.Scope.values, help="one or several (read, write)"
        )
        create.add_argument("--name", default="", help="what it is for")
        create.add_argument("--expires", type=_moment, help="a date, or a time as 2030-01-31T12:00:00Z")
        create.add_argument("--rate-limit", default="", type=_rate, help="such as 100/second")
        add_json(create)
        found = verbs.add_parser("list", help="a tenant's keys, without their secrets")
        found.add_argument("tenant")
        add_json(found)
        revoke = verbs.add_parser("revoke", help="end a key; every process refuses it within a second")
        revoke.add_argument("prefix", help="the part between rk_ and the second underscore")
        rotate = verbs.add_parser("rotate", help="a new key with the same rights; the old one ends")
        rotate.add_argument("prefix")
        rotate.add_argument("--grace", type=int, default=0, help="seconds for which the old one still works")
        add_json(rotate)

    async def do_create(
        self,
        *,
        tenant: str,
        scope: list[str] | None,
        name: str,
        expires: datetime | None,
        rate_limit: str,
        json: bool,
        **_: Any,
    ) -> None:
        owner = await tenant_named(tenant)
        scopes = list(dict.fromkeys(scope or [ApiKey.Scope.READ.value, ApiKey.Scope.WRITE.value]))
        key, plain = await keys.issue(
            tenant=owner, actor=actor(), scopes=scopes, name=name, expires_at=expires, rate_limit=rate_limit
        )
        self._show(key, plain, tenant, json)

    async def do_list(self, *, tenant: str, json: bool, **_: Any) -> None:
        owner = await tenant_named(tenant)
        data = [
            {
                "prefix": key.prefix,
                "name": key.name,
                "scopes": key.scopes,
                "state": _state(key),
                "rateLimit": key.rate_limit,
                "lastUsedAt": key.last_used_at and key.last_used_at.isoformat(),
            }
            async for key in ApiKey.async_objects.filter(tenant=owner).order_by("pk")
        ]
        lines = [f"{k['prefix']:<16} {k['state']:<8} {','.join(k['scopes']):<18} {k['name']}" for k in data]
        self.report("\n".join(lines) or f"{tenant} has no keys.", data, as_json=json)

    async def do_revoke(self, *, prefix: str, **_: Any) -> None:
        prefix = _bare(prefix)
        key = await _key(prefix)
        if key is None:
            raise CommandError(f"there is no key {prefix!r}")
        if not await keys.revoke(tenant_id=key.tenant_id, prefix=prefix, actor=actor()):
            raise CommandError(f"the key {prefix} was revoked before")
        self.stdout.write(f"The key {prefix} is revoked.")

    async def do_rotate(self, *, prefix: str, grace: int, json: bool, **_: Any) -> None:
        if grace < 0:
            raise CommandError("--grace wants seconds, 0 or more")
        prefix = _bare(prefix)
        old = await _key(prefix)
        made = old and await keys.rotate(
            tenant_id=old.tenant_id, prefix=prefix, actor=actor(), grace=timedelta(seconds=grace)
        )
        if not made:
            raise CommandError(f"there is no usable key {prefix!r} to rotate")
        key, plain = made
        tenant = key.tenant.slug
        self._show(key, plain, tenant, json)

    def _show(self, key: ApiKey, plain: str, tenant: str, json: bool) -> None:
        data = {"tenant": tenant, "prefix": key.prefix, "scopes": key.scopes, "apiKey": plain}
        self.report(f"API key of {tenant} ({', '.join(key.scopes)}), shown this once: {plain}", data, as_json=json)


async def _key(prefix: str) -> ApiKey | None:
    return await ApiKey.async_objects.filter(prefix=prefix).afirst()


def _bare(prefix: str) -> str:
    """The prefix; also accepts a whole key, such as a leaked one."""
    return prefix.split("_")[1] if prefix.startswith("rk_") else prefix


def _state(key: ApiKey) -> str:
    if key.revoked_at:
        return "revoked"
    return "expired" if key.expires_at and key.expires_at <= clock.now() else "usable"


def _moment(text: str) -> datetime:
    try:
        found = parse_datetime(text)
        if found is None and (day := parse_date(text)):
            found = datetime(day.year, day.month, day.day)
    except ValueError:
        found = None
    if found is None:
        raise argparse.ArgumentTypeError(f"wants a date or a time in ISO 8601, got {text!r}")
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    if found <= clock.now():
        raise argparse.ArgumentTypeError(f"{text} is in the past")
    return found


def _rate(text: str) -> str:
    try:
        if text:
            parse_limit(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"wants a limit such as 100/second, got {text!r}") from None
    return text
