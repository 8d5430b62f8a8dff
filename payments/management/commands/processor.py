"""`processor add`, `list`, `secrets`, `enable` and `disable`."""

import json as jsonlib
from typing import Any

from django.core.management.base import CommandError, CommandParser

from payments.models import Endpoint, Processor
from payments.routing import accounts
from registry.management.base import AsyncCommand, actor, add_json, tenant_named


class Command(AsyncCommand):
    help = "A tenant's processors: who books its payments."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        add = verbs.add_parser("add", help="give a tenant a processor")
        add.add_argument("tenant")
        add.add_argument("name")
        add.add_argument("--kind", required=True, help="http, stripe, sandbox")
        add.add_argument("--url", default="", help="where it answers; kind http needs it")
        add.add_argument("--fee", default="0", help="share of the amount: 0.05 is 5 %%")
        add.add_argument(
            "--option",
            action="extend",
            nargs="+",
            default=[],
            metavar="K=V",
            help="V as JSON, else text; repeatable. secretKey and webhookSecret are sealed",
        )
        add_json(add)
        found = verbs.add_parser("list", help="a tenant's processors")
        found.add_argument("tenant")
        add_json(found)
        secrets = verbs.add_parser("secrets", help="give a processor other keys; earlier webhook secrets go on working")
        secrets.add_argument("tenant")
        secrets.add_argument("name")
        secrets.add_argument(
            "--option", action="extend", nargs="+", required=True, metavar="K=V", help="secretKey, webhookSecret"
        )
        for verb, text in (("enable", "let payments be sent there"), ("disable", "send nothing new there")):
            switch = verbs.add_parser(verb, help=text)
            switch.add_argument("tenant")
            switch.add_argument("name")

    async def do_add(
        self, *, tenant: str, name: str, kind: str, url: str, fee: str, option: list[str], json: bool, **_: Any
    ) -> None:
        owner = await tenant_named(tenant)
        processor = await accounts.add(
            tenant=owner, name=name, kind=kind, url=url, fee=fee, options=_options(option), actor=actor()
        )
        text = f"{tenant} has a processor {name} ({kind}, fee {processor.fee:f})."
        self.report(text, _data(processor, None), as_json=json)

    async def do_secrets(self, *, tenant: str, name: str, option: list[str], **_: Any) -> None:
        owner = await tenant_named(tenant)
        await accounts.change_secrets(tenant=owner, name=name, options=_options(option), actor=actor())
        self.stdout.write(f"{name} of {tenant} has its new keys.")

    async def do_list(self, *, tenant: str, json: bool, **_: Any) -> None:
        owner = await tenant_named(tenant)
        processors = [one async for one in Processor.async_objects.filter(tenant=owner).order_by("fee", "name")]
        keys = {one.endpoint for one in processors}
        endpoints = {one.key: one async for one in Endpoint.async_objects.filter(key__in=keys)}
        data = [_data(one, endpoints.get(one.endpoint)) for one in processors]
        lines = [
            f"{d['name']:<20} {d['kind']:<8} fee {d['fee']:<8} {'enabled' if d['enabled'] else 'disabled':<9} "
            f"breaker {d['breaker']:<10} {d['url']}"
            for d in data
        ]
        self.report(
            "\n".join(lines) or f"{tenant} has no processors; `processor add` gives it one.", data, as_json=json
        )

    async def do_enable(self, *, tenant: str, name: str, **_: Any) -> None:
        await self._switch(tenant, name, enabled=True)

    async def do_disable(self, *, tenant: str, name: str, **_: Any) -> None:
        await self._switch(tenant, name, enabled=False)

    async def _switch(self, tenant: str, name: str, *, enabled: bool) -> None:
        moved = await accounts.switch(tenant=await tenant_named(tenant), name=name, enabled=enabled, actor=actor())
        self.stdout.write(f"{name} of {tenant} {'is' if moved else 'was'} {'enabled' if enabled else 'disabled'}.")


def _data(processor: Processor, endpoint: Endpoint | None) -> dict[str, Any]:
    """Without options, which may contain secrets."""
    return {
        "name": processor.name,
        "kind": processor.kind,
        "url": processor.url,
        "fee": float(processor.fee),
        "enabled": processor.enabled,
        "breaker": endpoint.breaker if endpoint else Endpoint.Breaker.CLOSED.value,
        "failing": endpoint.failing if endpoint else False,
    }


def _options(pairs: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for pair in pairs:
        name, found, text = pair.partition("=")
        if not (found and name):
            raise CommandError(f"--option wants K=V, got {pair!r}")
        try:
            options[name] = jsonlib.loads(text)
        except ValueError:
            options[name] = text
    return options
