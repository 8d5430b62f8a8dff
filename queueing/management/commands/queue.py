"""`queue list`, `configure`, `delete` and `rotate`: the message queue from the command line."""

from collections.abc import Sequence
from typing import Any

import msgspec
from django.core.management.base import CommandError, CommandParser

from queueing.broker import browse, crypto, manage, rotation
from queueing.jobs import queries, waiting
from queueing.jobs.builtin import queue_rotate
from queueing.jobs.builtin.queue_rotate import KeyRotation, RotationResult
from queueing.jobs.requests import of_service
from queueing.models import Job, JobStatus
from registry.management.base import AsyncCommand, add_json, tenant_named


class Command(AsyncCommand):
    help = "List, configure and delete queues; re-encrypt payloads with the current key."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        listing = verbs.add_parser("list", help="a tenant's queues and what is in them")
        configuring = verbs.add_parser("configure", help="make a queue or set its options")
        deleting = verbs.add_parser("delete", help="drop a queue and all that is in it")
        verbs.add_parser("rotate", help="re-encrypt payloads of older keys; can be interrupted and repeated")
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
        jobs = await self._rotated(crypto.current_key())
        results = [await self._result(job) for job in jobs if job.status == JobStatus.SUCCEEDED]
        self.stdout.write(f"{sum(one.changed for one in results)} re-encrypted with the current key.")
        if failed := [job for job in jobs if job.status != JobStatus.SUCCEEDED]:
            raise CommandError(f"{len(failed)} of {len(jobs)} jobs {failed[0].status}: {failed[0].error or 'no error'}")
        if unreadable := sum(one.unreadable for one in results):
            raise CommandError(
                f"{unreadable} cannot be read with any key of QUEUE_ENCRYPTION_KEYS and were left as they are"
            )

    async def _rotated(self, key: str) -> list[Job]:
        """A job for each tenant that has payloads, once it is over."""
        wanted = [
            of_service(queue_rotate.NAME, KeyRotation(key=key), tenant_id=tenant, unique_key=f"to {key}")
            for tenant in await rotation.tenants()
        ]
        return await waiting.finish_shown(wanted, label="re-encrypting")

    async def _result(self, job: Job) -> RotationResult:
        return msgspec.json.decode(await queries.result(job.tenant_id, job.uuid), type=RotationResult)


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
