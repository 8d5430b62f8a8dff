"""`tenant create` and `tenant list`."""

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import IntegrityError
from django_async_backend.db.transaction import async_atomic

from registry import access, audit, keys
from registry.currencies import CURRENCIES
from registry.management.base import AsyncCommand, actor, add_json
from registry.models import ApiKey, Tenant

FIRST_KEY = [ApiKey.Scope.READ.value, ApiKey.Scope.WRITE.value]


class Command(AsyncCommand):
    help = "Make a tenant with its first API key, or list all tenants."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="make a tenant and its first key")
        create.add_argument("slug")
        create.add_argument("--name", default="")
        create.add_argument("--currency", default="BRL", help="ISO 4217, used where a payment names none")
        create.add_argument("--open", action="store_true", help="requests without a key may act as this tenant")
        create.add_argument("--mode", choices=Tenant.Mode.values, default=Tenant.Mode.SANDBOX.value)
        add_json(create)
        add_json(verbs.add_parser("list", help="all tenants"))

    async def run(self, *, verb: str, **options: Any) -> None:
        await getattr(self, f"do_{verb}")(**options)

    async def do_create(
        self, *, slug: str, name: str, currency: str, open: bool, mode: str, json: bool, **_: Any
    ) -> None:
        currency = currency.upper()
        if currency not in CURRENCIES:
            raise CommandError(f"{currency!r} is not an ISO 4217 currency code such as BRL")
        if await Tenant.async_objects.filter(slug=slug).aexists():
            raise CommandError(f"there is a tenant {slug!r} already")
        try:
            async with async_atomic():
                tenant = await access.create_tenant(slug=slug, name=name, currency=currency, open=open, mode=mode)
                await audit.record(actor=actor(), action="tenant.add", target=f"tenant {slug}", tenant_id=tenant.pk)
                _, plain = await keys.issue(tenant=tenant, actor=actor(), scopes=FIRST_KEY, name="first key")
        except IntegrityError as error:  # another process was faster
            raise CommandError(f"there is a tenant {slug!r} already") from error
        text = f"Tenant {slug} is ready ({mode}, {currency}).\nIts API key, shown this once: {plain}"
        self.tell(text, {"tenant": slug, "apiKey": plain}, as_json=json)

    async def do_list(self, *, json: bool, **_: Any) -> None:
        tenants = [tenant async for tenant in Tenant.async_objects.order_by("slug")]
        data = [
            {
                "tenant": tenant.slug,
                "name": tenant.name,
                "currency": tenant.currency,
                "status": tenant.status,
                "mode": tenant.mode,
                "open": tenant.open,
            }
            for tenant in tenants
        ]
        lines = [f"{t['tenant']:<24} {t['status']:<10} {t['mode']:<8} {t['currency']}  {t['name']}" for t in data]
        self.tell("\n".join(lines) or "There are no tenants; `tenant create SLUG` makes one.", data, as_json=json)
