"""`tenant create`, `change`, `live`, `list`, `export` and `erase`."""

import argparse
import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError, CommandParser
from django.db import IntegrityError
from django.utils.module_loading import import_string
from django_async_backend.db.transaction import async_atomic

from registry.currencies import CURRENCIES
from registry.management.base import AsyncCommand, actor, add_json, tenant_named
from registry.management.export_file import sink
from registry.models import PATIENCE, ApiKey, Tenant
from registry.tenants import access, audit, erasure, go_live, keys
from registry.tenants import export as takeout

PATIENT = "milliseconds for which a lower fee is worth waiting"
BY_JOB = "queueing.jobs.exporting.pages"
FIRST_KEY = [ApiKey.Scope.READ.value, ApiKey.Scope.WRITE.value]


class Command(AsyncCommand):
    help = "Make a tenant with its first API key, list all tenants, export one or erase what is personal in it."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="make a tenant and its first key")
        create.add_argument("slug")
        create.add_argument("--name", default="")
        create.add_argument("--currency", default="BRL", help="ISO 4217, used where a payment names none")
        create.add_argument("--open", action="store_true", help="requests without a key may act as this tenant")
        create.add_argument("--mode", choices=Tenant.Mode.values, default=Tenant.Mode.SANDBOX.value)
        create.add_argument("--patience", type=int, default=PATIENCE, help=PATIENT)
        add_json(create)
        change = verbs.add_parser("change", help="change a tenant's settings")
        change.add_argument("slug")
        change.add_argument("--patience", type=int, required=True, help=PATIENT)
        change.add_argument("--reason", default="", help="kept in the audit trail")
        add_json(change)
        live = verbs.add_parser("live", help="switch a tenant to live mode if nothing is missing; cannot be undone")
        live.add_argument("slug")
        live.add_argument("--reason", default="", help="kept in the audit trail")
        add_json(live)
        add_json(verbs.add_parser("list", help="all tenants"))
        export = verbs.add_parser("export", help="everything of a tenant, as lines of JSON")
        export.add_argument("slug")
        export.add_argument("--output", default="-", help="a file; with the ending .zip it has a member per table")
        export.add_argument("--decrypt", action="store_true", help="messages of encrypted queues in the clear")
        export.add_argument("--reason", default="", help="kept in the audit trail")
        erase = verbs.add_parser(
            "erase", help="close a tenant and blank its personal data, or blank that of single payments"
        )
        erase.add_argument("slug")
        erase.add_argument(
            "--payment", action="extend", nargs="+", type=_uuid, help="of these payments only; repeatable"
        )
        erase.add_argument("--reason", required=True, help="kept in the audit trail")
        erase.add_argument("--yes", action="store_true", help="without it nothing is done: it cannot be undone")
        add_json(erase)

    async def do_create(
        self, *, slug: str, name: str, currency: str, open: bool, mode: str, patience: int, json: bool, **_: Any
    ) -> None:
        currency = currency.upper()
        if currency not in CURRENCIES:
            raise CommandError(f"{currency!r} is not an ISO 4217 currency code such as BRL")
        if await Tenant.async_objects.filter(slug=slug).aexists():
            raise CommandError(f"there is a tenant {slug!r} already")
        try:
            async with async_atomic():
                tenant = await access.create_tenant(
                    slug=slug, name=name, currency=currency, open=open, mode=mode, patience=patience
                )
                await audit.record(actor=actor(), action="tenant.add", target=f"tenant {slug}", tenant_id=tenant.pk)
                _, plain = await keys.issue(tenant=tenant, actor=actor(), scopes=FIRST_KEY, name="first key")
        except IntegrityError as error:  # another process created it first
            raise CommandError(f"there is a tenant {slug!r} already") from error
        text = f"Tenant {slug} is ready ({mode}, {currency}).\nIts API key, shown this once: {plain}"
        self.report(text, {"tenant": slug, "apiKey": plain}, as_json=json)

    async def do_change(self, *, slug: str, patience: int, reason: str, json: bool, **_: Any) -> None:
        tenant = await tenant_named(slug)
        before, tenant.patience = tenant.patience, patience
        tenant.clean_fields()
        async with async_atomic():
            await Tenant.async_objects.filter(pk=tenant.pk).aupdate(patience=patience)
            await audit.record(
                actor=actor(),
                action="tenant.change",
                target=f"tenant {slug}",
                tenant_id=tenant.pk,
                reason=reason,
                detail={"patience": [before, patience]},
            )
        text = f"Payments of {slug} go to the cheapest processor that answers within {patience} ms."
        self.report(text, {"tenant": slug, "patience": patience}, as_json=json)

    async def do_live(self, *, slug: str, reason: str, json: bool, **_: Any) -> None:
        tenant = await tenant_named(slug)
        done = await go_live.go_live(tenant=tenant, actor=actor(), reason=reason)
        text = f"Tenant {slug} is live." if done else f"Tenant {slug} is live already."
        self.report(text, {"tenant": slug, "mode": Tenant.Mode.LIVE.value, "changed": done}, as_json=json)

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
                "patience": tenant.patience,
            }
            for tenant in tenants
        ]
        lines = [f"{t['tenant']:<24} {t['status']:<10} {t['mode']:<8} {t['currency']}  {t['name']}" for t in data]
        self.report("\n".join(lines) or "There are no tenants; `tenant create SLUG` makes one.", data, as_json=json)

    async def do_export(self, *, slug: str, output: str, decrypt: bool, reason: str, **_: Any) -> None:
        tenant = await tenant_named(slug)
        detail = {"decrypt": decrypt}
        await audit.record(
            actor=actor(),
            action="tenant.export",
            target=f"tenant {slug}",
            tenant_id=tenant.pk,
            reason=reason,
            detail=detail,
        )
        counts: Counter[str] = Counter()
        # What is decrypted is written nowhere else: a job's file is stored.
        pages = takeout.export(tenant.pk, decrypt=True) if decrypt else _by_job(tenant.pk)
        with sink(output, self.stdout) as write:
            async for table, lines in pages:
                if decrypt and table not in counts:
                    self.stderr.write(f"{table} …")
                await asyncio.to_thread(write, table, lines)
                counts[table] += len(lines)
        self.stderr.write(f"{counts.total()} rows of {len(counts)} tables.")

    async def do_erase(
        self, *, slug: str, payment: list[UUID] | None, reason: str, yes: bool, json: bool, **_: Any
    ) -> None:
        tenant = await tenant_named(slug)
        if not yes:
            what = f"{len(payment)} payments of {slug}" if payment else f"the tenant {slug}, which is closed for good,"
            raise CommandError(f"what is personal in {what} would be blanked and cannot be brought back; say --yes")
        if payment:
            changed = await erasure.erase_payments(
                tenant_id=tenant.pk, correlation_ids=payment, actor=actor(), reason=reason
            )
        else:
            changed = await erasure.erase(tenant_id=tenant.pk, actor=actor(), reason=reason)
        lines = [f"{table}: {count} rows blanked" for table, count in changed.items()]
        self.report("\n".join(lines) or "Everything was blank already.", changed, as_json=json)


def _by_job(tenant_id: int) -> AsyncIterator[tuple[str, list[str]]]:
    """The pages of `takeout.export`, once a job has written them."""
    pages: AsyncIterator[tuple[str, list[str]]] = import_string(BY_JOB)(tenant_id)
    return pages


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"wants a correlation id, got {text!r}") from None
