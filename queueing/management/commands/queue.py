"""`queue list`, `configure`, `delete` and `rotate`: the message queue from the command line."""

from collections.abc import Sequence
from typing import Any

import msgspec
from django.core.management.base import CommandError, CommandParser
from rich.console import Console
from rich.progress import Progress

from queueing.broker import browse, manage, rotation
from registry.management.base import AsyncCommand, add_json, tenant_named


class Command(AsyncCommand):
    help = "List, configure and delete queues; encrypt payloads anew with the current key."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        listing = verbs.add_parser("list", help="a tenant's queues and what is in them")
        configuring = verbs.add_parser("configure", help="make a queue or set its options")
        deleting = verbs.add_parser("delete", help="drop a queue and all that is in it")
        verbs.add_parser("rotate", help="encrypt anew what older keys encrypted; stopped, it can be begun again")
        for chosen in (listing, configuring, deleting):
            chosen.add_argument("tenant", help="its slug")
        for chosen in (configuring, deleting):
            chosen.add_argument("queue")
        configuring.add_argument("option", nargs="*", help="name=value, by the names of the API, such as leaseTime=60")
        configuring.add_argument("--replace", action="store_true", help="set all others to their defaults")
        for chosen in (listing, configuring):
            add_json(chosen)

    async def do_list(self, *, tenant: str, json: bool, **_: Any) -> None:
        found = await browse.queues((await tenant_named(tenant)).pk)
        lines = [f"{one['name']}  {one['partitions']} partitions, {_words(one['messages'])}" for one in found]
        self.report("\n".join(lines) or "There is no queue.", msgspec.to_builtins(found), as_json=json)

    async def do_configure(
        self, *, tenant: str, queue: str, option: Sequence[str], replace: bool, json: bool, **_: Any
    ) -> None:
        who = await tenant_named(tenant)
        done = await manage.configure(who.pk, queue, dict(map(_parse, option)), replace=replace)
        text = " ".join(f"{name}={msgspec.json.encode(value).decode()}" for name, value in done.options.items())
        self.report(f"{queue}: {text}", msgspec.to_builtins(done), as_json=json)

    async def do_delete(self, *, tenant: str, queue: str, **_: Any) -> None:
        if not await manage.drop((await tenant_named(tenant)).pk, queue):
            raise CommandError(f"{tenant} has no queue {queue!r}")
        self.stdout.write(f"{queue} is deleted; its messages are removed in the background.")

    async def do_rotate(self, **_: Any) -> None:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("encrypting anew", total=None)
            done = await rotation.rotate(
                progress=lambda now: bar.update(task, completed=now.seen, total=now.total, description=_so_far(now))
            )
        self.stdout.write(f"{done.changed} encrypted anew with the current key.")
        if done.unreadable:
            raise CommandError(
                f"{done.unreadable} cannot be read with any key of QUEUE_ENCRYPTION_KEYS and were left as they are"
            )


def _so_far(now: rotation.Rotated) -> str:
    return f"{now.changed} encrypted anew, partition {now.seen} of {now.total}"


def _words(messages: dict[str, int]) -> str:
    return ", ".join(f"{messages[name]} {name}" for name in ("pending", "processing", "completed", "deadLetter"))


def _parse(text: str) -> tuple[str, Any]:
    """Raises CommandError."""
    name, equals, value = text.partition("=")
    if not equals:
        raise CommandError(f"{text}: wants name=value")
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        raise CommandError(f"{text}: wants a number, true or false after the =") from None
